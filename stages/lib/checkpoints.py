"""Where a training run keeps its checkpoints: outside DVC's outs, which are deleted before a stage runs."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stages.lib.errors import UserError
from stages.lib.files import remove, sha256


def key_of(settings: dict, template: str, seed: int, inputs: list[Path]) -> str:
    """A name for everything that decides a run: settings and the bytes of the data, the base and the code.

    A changed setting, row, weight or line of code gives another name, so nothing ever resumes on it.
    """
    digest = hashlib.sha256(json.dumps([settings, template, seed], default=vars, sort_keys=True).encode())
    for root in inputs:
        for path in sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            digest.update(f"{path.relative_to(root)} {sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


@contextmanager
def locked(key: str) -> Iterator[Path]:
    """The checkpoint folder of a key, held by one trainer at a time; raises UserError where another holds it.

    It lies in the main checkout (DVC_ROOT) even when DVC runs the stage in a temporary workspace.
    """
    folder = Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints" / key
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            yield folder
    except Timeout as error:
        raise UserError(f"{folder}: another training run holds these checkpoints; wait for it or stop it") from error


def newest(folder: Path) -> Path | None:
    """The last complete checkpoint; a killed save lacks trainer_state.json, which is written last."""
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if path.stat().st_size]
    return max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)


def discard(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    remove(folder)
