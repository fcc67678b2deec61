"""A GGUF file as it is read: its metadata and its tensors, mapped into memory."""

from pathlib import Path

from gguf import GGUFReader

from stages.lib.core.errors import UserError


def read_gguf(file: Path) -> GGUFReader:
    """The reader of a GGUF; raises UserError where there is none, or it was cut off."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; build it with `dvc repro`, or fetch it with `dvc pull`")
    try:
        return GGUFReader(file)
    except (ValueError, IndexError) as error:  # what numpy says of a cut file tells a person nothing
        size = f"{file.stat().st_size} bytes; versions 2 and 3 of the format are read"
        raise UserError(f"{file}: not a GGUF, or cut off ({size}); make or fetch it again") from error
