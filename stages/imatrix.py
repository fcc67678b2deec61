"""imatrix: how much each weight matters on the training text, for the quantizer to weigh its errors by."""

from pathlib import Path

from stages.lib import dialogues, llamacpp, paths
from stages.lib.chat import rendered
from stages.lib.files import write_text
from stages.lib.models import load_tokenizer
from stages.lib.stage import run

CHARACTERS = 8  # a token has fewer on average: text for as many chunks as are asked for


def main(weighed: bool, chunks: int, prepared: Path, base: Path, gguf: Path, imatrix: Path) -> None:
    """Measure it on rendered training dialogues, the first ones by id; an empty file where export.imatrix is false."""
    if not weighed:
        write_text(imatrix, "")
        return
    tokenizer, enough = load_tokenizer(base), chunks * llamacpp.CHUNK * CHARACTERS
    text = ""
    for row in dialogues.by_id(prepared / "train.jsonl"):
        text += rendered(tokenizer, row["messages"])
        if len(text) > enough:
            break
    llamacpp.imatrix(gguf, text, imatrix, chunks)


if __name__ == "__main__":
    run(
        main,
        sections=("export.imatrix", "export.imatrix_chunks"),
        paths=(paths.PREPARED, paths.BASE, paths.gguf("f16"), paths.IMATRIX),
    )
