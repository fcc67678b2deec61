"""Tokenise and pack 112,000 dialogues with Llama-3's real vocabulary: `python -m bench.tokenize`."""

import os
import sys
import tempfile
from pathlib import Path

from omegaconf import OmegaConf

from bench.corpus import corpus
from bench.measuring import measure
from bench.vocabulary import llama3_tokenizer
from stages.lib.core.files import read_json, write_json, write_jsonl
from stages.lib.settings.template import Template

DIALOGUES, MAX_LENGTH = 112_000, 2048
LENGTHS_FROM = Path("../shared/data/chatdoctor_4k.json")  # where it is missing: the sample corpus
RESULT = Path(__file__).with_suffix(".json")
RUN = """
import sys
from pathlib import Path
from stages import tokenize
prepared, base, out, max_length = sys.argv[1:]
tokenize.main(int(max_length), "drop", Path(prepared), Path(base), Path(out), Path(out + ".json"))
"""


def main() -> None:
    """Measure the whole stage as a process: seconds, peak memory, share of the rows that is filled."""
    template = Template(**OmegaConf.to_object(OmegaConf.load("conf/template/chatml.yaml")))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus(folder, DIALOGUES, 100, seed=1, lengths_from=LENGTHS_FROM)
        rows = (
            {
                "source": "synthetic",
                "messages": [{"role": "user", "content": r["input"]}, {"role": "assistant", "content": r["output"]}],
            }
            for r in read_json(folder / "dialogues.json")
        )
        write_jsonl(folder / "prepared/train.jsonl", rows)
        lines = (folder / "prepared/train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "prepared/validation.jsonl").write_text("".join(lines[:100]), encoding="utf-8")
        (folder / "base").mkdir()
        llama3_tokenizer(folder / "base", template)
        arguments = [folder / "prepared", folder / "base", folder / "out", MAX_LENGTH]
        measured = measure([sys.executable, "-c", RUN, *map(str, arguments)])
        train = read_json(folder / "out.json")["train"]
    write_json(RESULT, measured | train | {"cpu_count": os.cpu_count()})
    seconds, megabytes = measured["seconds"], measured["peak_mb"]
    packed = f"packed sequences of {MAX_LENGTH} | packing efficiency"
    print(f"| dialogues | tokens | seconds | tokens/s | peak memory | {packed} |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {DIALOGUES:,} | {train['tokens']:,} | {seconds:.1f} | {train['tokens'] / seconds:,.0f} "
        f"| {megabytes:,.0f} MB | {train['sequences']:,} | {train['packing_efficiency']:.4f} |"
    )


if __name__ == "__main__":
    main()
