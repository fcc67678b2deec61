"""A base that is a model folder already: which files make it up, what identifies them, how they are taken over."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from stages.lib.core.errors import UserError
from stages.lib.core.files import sha256
from stages.lib.core.resources import require_disk
from stages.lib.model.weights import shards_of

DESCRIBING = ("*.json", "*.jinja", "LICENSE*", "USE_POLICY*")  # what is taken over beside the weights


def files_of(folder: Path) -> list[Path]:
    """The weights, config, tokenizer and licence of a model folder, by name; nothing else is taken over.

    Raises UserError where weights are missing or pickled.
    """
    return sorted({*shards_of(folder), *(path for kind in DESCRIBING for path in folder.glob(kind))})


def digest_of(files: list[Path], hash_of: Callable[[Path], str] = sha256) -> str:
    """SHA-256 over the names and hashes of files: what identifies a model folder, wherever it lies."""
    lines = [f"{hash_of(path)}  {path.name}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def copy(source: Path, target: Path, link: bool) -> None:
    """Copy a model folder's files; with `link`, weights are hard links where the disk allows it.

    Only what nobody writes in place may be linked, such as the hub's cache. Raises UserError where there is no room.
    """
    files = files_of(source)
    size = sum(path.stat().st_size for path in files if not link)
    require_disk(target, size, f"a copy of {source}")
    target.mkdir(parents=True)
    for path in files:
        copied = target / path.name
        if not (link and path.suffix == ".safetensors" and _linked(path, copied)):
            shutil.copyfile(path, copied)


def require_digest(folder: Path, expected: str, named: str) -> None:
    """Raise UserError where a copy is not what `expected` was taken of."""
    if (found := digest_of(files_of(folder))) != expected:
        raise UserError(
            f"{named} has sha256 {found} over its files, params.yaml has {expected}: it was changed since; "
            f"take it up with `dvc exp run -S model=local -S model.path={named}`"
        )


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path.resolve(), target)
    except OSError:  # another disk, or one without hard links
        return False
    return True
