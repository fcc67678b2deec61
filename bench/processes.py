"""One run of ours or of a peer in a process of its own, with the peer's packages beside this project's."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from array import array
from collections.abc import Iterable
from pathlib import Path

from stages.lib.core.files import read_json, write_json

LAST = 3  # lines of what a failed process said
BETWEEN = " / "  # them
TRL = "trl==1.16.0"


def run(
    module: str, settings: dict, folder: Path, *packages: str, seconds: float | None = None, aloud: bool = False
) -> dict:
    """What `python -m bench.MODULE SETTINGS OUT` wrote; with `failed`, why, where it failed or took over `seconds`.

    It can import the packages. With `aloud`, what it prints is seen while it runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given, out, said = folder / "settings.json", folder / "seen.json", folder / "stderr.txt"
    given.write_text(json.dumps(settings), encoding="utf-8")
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"bench.{module}", str(given), str(out)]
    path = os.pathsep.join([str(installed(*packages)) if packages else "", os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    stdout = None if aloud else subprocess.DEVNULL
    with said.open("wb") as stderr:
        try:
            status = subprocess.run(command, stdout=stdout, stderr=stderr, env=environment, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            status = None
    if status == 0:
        return read_json(out)
    seen = read_json(out) if out.exists() else {}
    how = f"stopped after {seconds:.0f} s" if status is None else ended(status)
    lines = said.read_text(encoding="utf-8", errors="replace").split("\n")
    return seen | {"failed": BETWEEN.join([how, *[line.strip()[:300] for line in lines if line.strip()][-LAST:]])}


def why(seen: dict) -> str:
    """The last line that a process said before it failed, for a cell of a table; empty where it has not failed."""
    return seen.get("failed", "").split(BETWEEN)[-1].replace("|", "/")


def ended(status: int) -> str:
    """How a process ended, by its status."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"


class Answers:
    """What a process has measured: each answer is printed, and added to the JSON that `run` gives back, at once."""

    def __init__(self, out: Path) -> None:
        self.out, self.figures = out, {}

    def add(self, line: str, **figures) -> None:
        """Say a line, and keep its figures."""
        print(f"  {line}", flush=True)
        self.figures |= figures
        write_json(self.out, self.figures)


def asked() -> tuple[dict, Answers]:
    """What `run` asks of this process, and where its answers go."""
    return read_json(Path(sys.argv[1])), Answers(Path(sys.argv[2]))


def trl(gpu: bool) -> tuple[str, ...]:
    """TRL, and beside a GPU Liger's kernels, which need one."""
    return (TRL, "liger-kernel") if gpu else (TRL,)


def installed(*packages: str) -> Path:
    """A folder with these packages and nothing they depend on: that is this project's own, of its own versions."""
    folder = Path(".bench", re.split("[=<>]", packages[0])[0]).absolute()
    ready, wanted = folder / "ready", "\n".join(packages)
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
        subprocess.run([*pip, *packages], check=True)
        ready.write_text(wanted, encoding="utf-8")
    return folder


def peer_python(name: str, packages: Iterable[str]) -> str:
    """An interpreter that has a peer's packages: the one that NAME_PYTHON names, or one of an environment of its own.

    The environment is made under .bench/ where it is missing.
    """
    if chosen := os.environ.get(f"{name.upper()}_PYTHON"):
        return chosen
    folder = Path(".bench", name).absolute()
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "ready").touch()
    return str(folder / "bin/python")


def fingerprint(texts: Iterable[list[int]]) -> list[str]:
    """A short hash of each text in token ids: two processes that print the same ones have read the same."""
    return [hashlib.sha256(array("i", ids).tobytes()).hexdigest()[:16] for ids in texts]
