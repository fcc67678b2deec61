"""imatrix: how much each weight matters on the training text, for the quantizer to weigh its errors by."""

from pathlib import Path

from stages.lib.core import paths
from stages.lib.core.files import write_text
from stages.lib.core.stage import run
from stages.lib.data.prepared import sorted_dialogues
from stages.lib.export import llamacpp

CHARACTERS = 8  # a token has fewer on average: text for as many chunks as are asked for


def main(weighed: bool, chunks: int, prepared: Path, base: Path, gguf: Path, imatrix: Path) -> None:
    """Measure it on rendered training dialogues, the first ones by id; an empty file where export.imatrix is false."""
    if not weighed:
        write_text(imatrix, "")
        return
    text = training_text(prepared, base, chunks * llamacpp.CHUNK * CHARACTERS)
    llamacpp.imatrix(gguf, text, imatrix, chunks)


def training_text(prepared: Path, base: Path, enough: int) -> str:
    """Rendered training dialogues, the first ones by id, until they have more than `enough` characters."""
    # They import torch, which takes seconds; most runs make no matrix.
    from stages.lib.model.chat import rendered
    from stages.lib.model.loading import load_tokenizer

    tokenizer = load_tokenizer(base)
    text = ""
    for row in sorted_dialogues(prepared / "train.jsonl"):
        text += rendered(tokenizer, row["messages"])
        if len(text) > enough:
            break
    return text


if __name__ == "__main__":
    run(
        main,
        sections=("export.imatrix", "export.imatrix_chunks"),
        paths=(paths.PREPARED, paths.BASE, paths.gguf(paths.F16), paths.IMATRIX),
    )
