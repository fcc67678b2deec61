"""Run one of llama.cpp's own converters: `python convert.py TREE METADATA SCRIPT MODEL ...` (its arguments follow).

Two things are added. A byte-level BPE that splits text exactly as Llama-3's is declared `llama-bpe`, one that splits it
as SmolLM's `smollm`: the converter knows vocabularies by a hash of their token ids, so it cannot know one that was
trained here, while what these names mean to llama.cpp is just the split. And METADATA, a JSON object of strings, goes
into the file.
"""

import json
import runpy
import sys
from pathlib import Path

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What llama.cpp calls a way to split text: the steps of a tokenizer.json, without `trim_offsets`: it moves no boundary.
KINDS = {
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ],
    "smollm": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    ],
}


def split_steps(model: Path) -> list[dict]:
    """How a tokenizer.json splits text, as in KINDS."""
    step = json.loads((model / "tokenizer.json").read_text(encoding="utf-8")).get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    return [{key: value for key, value in one.items() if key != "trim_offsets"} for one in steps]


def main(tree: str, metadata: str, script: str, *arguments: str) -> None:
    """Convert; exits with one sentence where the vocabulary is neither known to llama.cpp nor of KINDS."""
    sys.path.insert(0, tree)
    sys.argv = [script, *arguments]
    from conversion.base import ModelBase, TextModel

    model = next((Path(one) for one in arguments if (Path(one) / "tokenizer.json").is_file()), None)
    steps = split_steps(model) if model else []
    if name := next((name for name, known in KINDS.items() if known == steps), None):
        TextModel.get_vocab_base_pre = lambda self, tokenizer: name
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
            f"{model}/tokenizer.json: it splits text by {steps}, which is unknown to llama.cpp; "
            f"use a base that splits it exactly as Llama-3 or SmolLM does: {KINDS}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
