"""The keys of a GGUF's metadata that say where it comes from: how they are named, and how they are read."""

from pathlib import Path

from gguf import GGUFReader

from stages.lib.core.errors import UserError

PREFIX = "chatdoctor."
DVC = f"{PREFIX}dvc."  # then a path, whose value is its hash in dvc.lock


def lineage_of(file: Path) -> dict[str, str]:
    """The keys of a GGUF that say where it comes from; raises UserError where it is no GGUF or has none."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; build it with `dvc repro`, or fetch it with `dvc pull`")
    try:
        fields = GGUFReader(file).fields
    except (ValueError, IndexError) as error:
        raise UserError(f"{file}: not a GGUF, or cut off: {error}") from error
    keys = {key: field.contents() for key, field in fields.items() if key.startswith(PREFIX)}
    if not keys:
        raise UserError(f"{file}: no key begins with {PREFIX}: it was not made by this project, or lost them since")
    return keys
