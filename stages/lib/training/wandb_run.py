"""A finished training as one Weights & Biases run, written from its log history."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from stages.lib.core.files import remove, sha256
from stages.lib.core.paths import checkout
from stages.lib.settings.track import Track
from stages.lib.training.history import steps, summary

SYNC_LIMIT = 300  # seconds; without a network `wandb sync` would try for days


class Origin(NamedTuple):
    """What a training was made from: its settings, as nested plain values; dvc.lock, and its inputs there."""

    settings: dict
    lock: Path
    inputs: list[Path]


def write_run(track: Track, run_id: str, history: list[dict], adapter: Path, origin: Origin) -> None:
    """Write the finished training as one W&B run: `offline` as a folder below wandb/, `online` also sent.

    The whole history is written at once under an id that the inputs decide, so that a resumed training
    loses no step, and a repeated one replaces the run, here and on W&B. The run's config is the origin's settings,
    `hashes` (what dvc.lock has on its inputs and all they were made from), `git`, and `adapter` (SHA-256
    by file). A failure is logged, never raised: a training is not lost for its tracking.
    """
    if track.mode == "disabled":
        return
    try:
        files = {path.name: sha256(path) for path in sorted(adapter.iterdir()) if path.is_file()}
        hashes = lineage(origin.lock, origin.inputs)
        config = origin.settings | {"hashes": hashes, "git": revision(), "adapter": files}
        folder = write_offline(track.project, run_id, config, steps(history), summary(history))
    except Exception as error:  # wandb has many, and a full disk is one too
        logging.warning("W&B run not written: %s; adapter, plots/train and metrics/train.json are complete", error)
        return
    here = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    if track.mode == "offline":
        logging.info("W&B run %s written; `wandb sync %s` sends it", run_id, here)
    elif reason := failure_of_sync(folder):
        logging.warning("W&B run %s not sent: %s; nothing is lost: `wandb sync %s` sends it", run_id, reason, here)
    else:
        logging.info("W&B run %s sent to project %s", run_id, track.project)


def write_offline(project: str, run_id: str, config: dict, rows: list[dict], summary: dict) -> Path:
    """Write a complete offline run in the main checkout, in place of one of the same id; return its folder."""
    import wandb

    # Training is over: the machine's load says nothing any more, and the terminal has nothing to keep.
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    root = checkout()
    # No `resume`: W&B would go on after the last step that it knows, and this run starts at the first one.
    with wandb.init(project=project, id=run_id, mode="offline", dir=root, config=config, settings=settings) as run:
        folder = Path(run.dir).parent.absolute()
        for row in rows:
            figures = {key: value for key, value in row.items() if key != "step"}
            run.log(figures, step=row["step"], commit=True)  # else the last step overwrites the summary
        run.summary.update(summary)
    for log in folder.parent.glob(f"offline-run-*/run-{run_id}.wandb"):
        if log.parent != folder:
            remove(log.parent)
    return folder


def failure_of_sync(folder: Path) -> str:
    """Send an offline run to W&B; the reason where that failed, else nothing.

    A process of its own without a terminal: nothing asks for a key while nobody is there to answer.
    """
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    logging.info("sending the W&B run, at most %d s", SYNC_LIMIT)
    root = folder.parents[1]  # the settings in wandb/ are looked for below the working directory
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SYNC_LIMIT, cwd=root
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {SYNC_LIMIT} s"
    if list(folder.glob("*.wandb.synced")):  # its own mark; it ends with status 0 after some failures too
        return ""
    return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]


def lineage(lock: Path, inputs: list[Path]) -> dict[str, str]:
    """MD5 by path of `inputs` and of every stage output that they were made from, as dvc.lock has them.

    Not of the rest of dvc.lock: while a stage runs, its own outputs there are those of an earlier run.
    """
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"] if lock.is_file() else {}
    makers = {out["path"]: stage for stage in stages.values() for out in stage.get("outs", [])}
    hashes: dict[str, str] = {}
    todo = [path.as_posix() for path in inputs]
    while todo:
        maker = makers.get(todo.pop(), {})
        fresh = {out["path"]: out["md5"] for out in maker.get("outs", []) if out["path"] not in hashes}
        if fresh:
            hashes |= fresh
            todo += [dep["path"] for dep in maker.get("deps", [])]
    return dict(sorted(hashes.items()))


def revision() -> dict:
    """Git's `revision` ("unknown" outside a repository), and the paths `uncommitted` in it."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {"revision": "unknown", "uncommitted": []}
    return {"revision": head.stdout.strip(), "uncommitted": [line[3:] for line in status.stdout.splitlines()]}
