"""A base that is a model folder already: which files make it up, what identifies them, how they are taken over."""

import os
import shutil
from pathlib import Path

from stages.lib.core.files import copy_verified
from stages.lib.core.resources import require_disk
from stages.lib.model.weights import digest_of, shards_of

DESCRIBING = ("*.json", "*.jinja", "LICENSE*", "USE_POLICY*")  # what is taken over beside the weights


def files_of(folder: Path) -> list[Path]:
    """The weights, config, tokenizer and licence of a model folder, by name; nothing else is taken over.

    Raises UserError where weights are missing or pickled.
    """
    return sorted({*shards_of(folder), *(path for kind in DESCRIBING for path in folder.glob(kind))})


def copy(source: Path, target: Path) -> str:
    """Copy a model folder's files and return the digest of what was copied; raises UserError where there is no room."""
    files = files_of(source)
    require_disk(target, sum(path.stat().st_size for path in files), f"a copy of {source}")
    return digest_of(files, lambda path: copy_verified(path, target / path.name, ""))


def link(source: Path, target: Path) -> None:
    """Hard-link a model folder's weights where the disk allows it, and copy its other files.

    Only what nobody writes in place may be linked, such as the hub's cache.
    """
    target.mkdir(parents=True)
    for path in files_of(source):
        copied = target / path.name
        if not (path.suffix == ".safetensors" and _linked(path, copied)):
            shutil.copyfile(path, copied)


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path.resolve(), target)
    except OSError:  # another disk, or one without hard links
        return False
    return True
