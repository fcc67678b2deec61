"""What each stage last took on this machine, as the stages left it below `.cost/`."""

from pathlib import Path

from stages.lib.files import read_json

BEFORE = ("config", "fetch", "prepare", "base", "tokenize", "train", "merge", "convert", "imatrix")


def read_costs(folder: Path, types: list[str], verified: list[str], models: list[str]) -> dict[str, dict | None]:
    """Stage or stage@item -> {seconds, peak_bytes, machine}, in the pipeline's order; None where it was not run here.

    The report itself is not among them: it has not ended when it reads this.
    """
    items = {"quantize": types, "verify": verified, "evaluate": models}
    names = [*BEFORE, *(f"{stage}@{item}" for stage, some in items.items() for item in some)]
    files = {name: folder / f"{name}.json" for name in names}
    return {name: read_json(file) if file.is_file() else None for name, file in files.items()}
