"""One run of ours or of a peer in a process of its own, with the peer's packages beside this project's."""

import hashlib
import json
import os
import re
import subprocess
import sys
from array import array
from collections.abc import Iterable
from pathlib import Path


def run(module: str, settings: dict, folder: Path, *packages: str) -> dict:
    """What `python -m bench.MODULE SETTINGS OUT` wrote, or `{"failed": its last line}`; it can import the packages."""
    folder.mkdir(parents=True, exist_ok=True)
    given, out = folder / "settings.json", folder / "seen.json"
    given.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", f"bench.{module}", str(given), str(out)]
    path = os.pathsep.join([str(installed(*packages)) if packages else "", os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:300]}
    return json.loads(out.read_text(encoding="utf-8"))


def installed(*packages: str) -> Path:
    """A folder with these packages and nothing they depend on: that is this project's own, of its own versions."""
    folder = Path(".bench", re.split("[=<>]", packages[0])[0]).absolute()
    ready, wanted = folder / "ready", "\n".join(packages)
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
        subprocess.run([*pip, *packages], check=True)
        ready.write_text(wanted, encoding="utf-8")
    return folder


def fingerprint(texts: Iterable[list[int]]) -> list[str]:
    """A short hash of each text in token ids: two processes that print the same ones have read the same."""
    return [hashlib.sha256(array("i", ids).tobytes()).hexdigest()[:16] for ids in texts]
