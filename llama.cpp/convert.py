"""Run llama.cpp's own converter: `python convert.py TREE MODEL ...` (its other arguments follow).

The one thing added: a byte-level BPE whose split pattern is exactly Llama-3's is declared `llama-bpe`. The
converter knows vocabularies by a hash of their token ids, so it cannot know one that was trained here, while
what `llama-bpe` names in llama.cpp is just that split pattern.
"""

import json
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


def main(tree: str, model: str, *arguments: str) -> None:
    """Convert; exits with one sentence where the vocabulary is neither known to llama.cpp nor Llama-3's kind."""
    sys.path.insert(0, tree)
    sys.argv = ["convert_hf_to_gguf.py", model, *arguments]
    import convert_hf_to_gguf
    from conversion.base import TextModel

    if split_patterns(Path(model)) == [LLAMA3_SPLIT]:
        TextModel.get_vocab_base_pre = lambda self, tokenizer: "llama-bpe"
    try:
        convert_hf_to_gguf.main()
    except NotImplementedError as error:
        if "pre-tokenizer was not recognized" not in str(error):
            raise
        sys.exit(
            f"{model}/tokenizer.json: split pattern {split_patterns(Path(model))} is unknown to llama.cpp, "
            f"expected exactly Llama-3's {LLAMA3_SPLIT!r}; use a base with Llama-3's tokenizer"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
