"""Run one of llama.cpp's own converters: `python convert.py TREE METADATA SCRIPT MODEL ...` (its arguments follow).

Two things are added. A byte-level BPE whose split pattern is exactly Llama-3's is declared `llama-bpe`: the
converter knows vocabularies by a hash of their token ids, so it cannot know one that was trained here, while what
`llama-bpe` names in llama.cpp is just that split pattern. And METADATA, a JSON object of strings, goes into the file.
"""

import json
import runpy
import sys
from pathlib import Path

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split_patterns(model: Path) -> list[str]:
    """The regular expressions of every Split step of a tokenizer.json."""
    step = json.loads((model / "tokenizer.json").read_text(encoding="utf-8")).get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    return [s["pattern"].get("Regex", "") for s in steps if s.get("type") == "Split"]


def main(tree: str, metadata: str, script: str, *arguments: str) -> None:
    """Convert; exits with one sentence where the vocabulary is neither known to llama.cpp nor Llama-3's kind."""
    sys.path.insert(0, tree)
    sys.argv = [script, *arguments]
    from conversion.base import ModelBase, TextModel

    model = next((Path(one) for one in arguments if (Path(one) / "tokenizer.json").is_file()), None)
    patterns = split_patterns(model) if model else []
    if patterns == [LLAMA3_SPLIT]:
        TextModel.get_vocab_base_pre = lambda self, tokenizer: "llama-bpe"
    prepare_metadata = ModelBase.prepare_metadata

    def with_more(self, vocab_only: bool) -> None:
        prepare_metadata(self, vocab_only)
        for key, value in json.loads(metadata).items():
            self.gguf_writer.add_string(key, value)

    ModelBase.prepare_metadata = with_more
    try:
        runpy.run_path(f"{tree}/{script}", run_name="__main__")
    except NotImplementedError as error:
        if "pre-tokenizer was not recognized" not in str(error):
            raise
        sys.exit(
            f"{model}/tokenizer.json: split pattern {patterns} is unknown to llama.cpp, "
            f"expected exactly Llama-3's {LLAMA3_SPLIT!r}; use a base with Llama-3's tokenizer"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
