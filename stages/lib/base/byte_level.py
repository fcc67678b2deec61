"""Byte-level BPE tokenizers of the kinds that llama.cpp splits as training does, named as in `tokenizer.ggml.pre`."""

import json
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

# Llama-3's split pattern (its tokenizer.json, `pre_tokenizer`).
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = "llama-bpe"  # of every Llama-3; words of the vocabulary are never taken apart
SMOLLM = "smollm"  # of SmolLM and SmolLM2: digits one by one, then GPT-2's pattern
KINDS = (LLAMA3, SMOLLM)


def tokenizer_of(kind: str, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """A tokenizer of one of KINDS without added tokens."""
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=kind == LLAMA3))
    tokenizer.pre_tokenizer = _pre_tokenizer(kind)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def put_in_front(tokenizer: Tokenizer, bos: str) -> None:
    """Have one BOS put in front of every text that is encoded with special tokens."""
    (bos_id,) = tokenizer.encode(bos, add_special_tokens=False).ids
    template = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, bos_id)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])


def kind_of(tokenizer: Tokenizer) -> str | None:
    """Which of KINDS a tokenizer is, None where it is none of them: it would split some text otherwise."""
    steps = _steps(tokenizer)
    unchanged = tokenizer.normalizer is None and isinstance(tokenizer.model, models.BPE)
    return next((kind for kind in KINDS if unchanged and _steps(tokenizer_of(kind, {}, [])) == steps), None)


def _steps(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """How a text is split, without what moves no boundary, and whether whole words are taken from the vocabulary."""
    written = json.loads(tokenizer.to_str())
    first = written["pre_tokenizer"] or {}
    steps = first.get("pretokenizers", [first])
    plain = [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
    return [*plain, {"ignore_merges": written["model"].get("ignore_merges", False)}]


def _pre_tokenizer(kind: str) -> pre_tokenizers.PreTokenizer:
    if kind == LLAMA3:
        first: Any = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated")
    else:
        first = pre_tokenizers.Digits(individual_digits=True)
    rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == SMOLLM)
    return pre_tokenizers.Sequence([first, rest])
