"""The tokenizer of a GGUF as transformers has it: the same token ids for every text."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from stages.lib.base.byte_level import KINDS, LLAMA3, put_in_front, tokenizer_of
from stages.lib.core.errors import UserError
from stages.lib.core.files import write_json

CONTROL, USER_DEFINED = 3, 4  # token types, as llama.h numbers them
PREFIX = "tokenizer.ggml."


def require_known(file: Path, keys: dict[str, Any]) -> None:
    """Raise UserError where the keys of a GGUF's metadata describe a tokenizer of none of KINDS."""
    model, pre = keys.get(f"{PREFIX}model"), keys.get(f"{PREFIX}pre")
    if model != "gpt2" or pre not in KINDS:
        raise UserError(
            f"{file}: its tokenizer is {model!r}, split as {pre!r} (tokenizer.ggml.model and .pre), expected 'gpt2', "
            f"split as {' or '.join(map(repr, KINDS))}; take another base"
        )


def write_tokenizer(keys: dict[str, Any], folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json as the keys of a GGUF's metadata describe it."""
    tokens = keys[f"{PREFIX}tokens"]
    tokenizer = _tokenizer(keys[f"{PREFIX}pre"], tokens, keys[f"{PREFIX}token_type"], keys[f"{PREFIX}merges"])
    bos = tokens[keys[f"{PREFIX}bos_token_id"]]
    if keys.get(f"{PREFIX}add_bos_token", keys[f"{PREFIX}pre"] == LLAMA3):  # llama.cpp's own default of each
        put_in_front(tokenizer, bos)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"bos_token": bos, "eos_token": tokens[keys[f"{PREFIX}eos_token_id"]]}
    described["model_max_length"] = keys["llama.context_length"]
    if template := keys.get("tokenizer.chat_template"):
        described["chat_template"] = template
    write_json(folder / "tokenizer_config.json", described)


def _tokenizer(pre: str, tokens: list[str], types: list[int], merges: list[str]) -> Tokenizer:
    """Control tokens behind all others are added to the vocabulary, as Llama-3's are; others stay in their places."""
    added = [i for i, kind in enumerate(types) if kind in (CONTROL, USER_DEFINED)]
    learnt = 1 + max(i for i, kind in enumerate(types) if kind not in (CONTROL, USER_DEFINED))
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    tokenizer = tokenizer_of(pre, {token: i for i, token in enumerate(tokens[:learnt])}, pairs)
    tokenizer.add_tokens([AddedToken(tokens[i], normalized=False, special=types[i] == CONTROL) for i in added])
    return tokenizer
