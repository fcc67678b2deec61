"""The keys of a GGUF's metadata that say where it comes from: how they are named, and how they are read."""

from pathlib import Path

from stages.lib.base.gguf_file import read_gguf
from stages.lib.core.errors import UserError

PREFIX = "chatdoctor."
DVC = f"{PREFIX}dvc."  # then a path, whose value is its hash in dvc.lock


def lineage_of(file: Path) -> dict[str, str]:
    """The keys of a GGUF that say where it comes from; raises UserError where it is no GGUF or has none."""
    keys = {key: field.contents() for key, field in read_gguf(file).fields.items() if key.startswith(PREFIX)}
    if not keys:
        raise UserError(f"{file}: no key begins with {PREFIX}: it was not made by this project, or lost them since")
    return keys
