"""The keys of a GGUF's metadata that say where it comes from: how they are named, and how they are read."""

from gguf import GGUFReader

from stages.lib.core.errors import UserError

PREFIX = "chatdoctor."
DVC = f"{PREFIX}dvc."  # then a path, whose value is its hash in dvc.lock


def lineage_of(gguf: GGUFReader) -> dict[str, str]:
    """The keys of a GGUF that say where it comes from; raises UserError where it has none."""
    keys = {key: field.contents() for key, field in gguf.fields.items() if key.startswith(PREFIX)}
    if not keys:
        made = "it was not made by this project, or lost them since"
        raise UserError(f"{gguf.data.filename}: no key begins with {PREFIX}: {made}")
    return keys
