"""The chat template, installed into a base: markers, EOS and padding token; no token id changes."""

import json
from pathlib import Path

from transformers import GenerationConfig, PreTrainedTokenizerFast

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, write_json
from stages.lib.settings.template import Template


def install_template(folder: Path, template: Template) -> None:
    """Rename reserved tokens to the template's markers and set end and pad tokens; no token id changes.

    Raises UserError where the vocabulary lacks a token that the template names.
    """
    rename_tokens(folder / "tokenizer.json", template.renamed_tokens)
    settings = read_json(folder / "tokenizer_config.json")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        bos_token=settings["bos_token"],
        eos_token=template.eos_token,
        pad_token=template.pad_token,
        chat_template=template.chat_template,
        model_max_length=settings["model_max_length"],
        clean_up_tokenization_spaces=False,
    )
    vocabulary = tokenizer.get_vocab()
    for token in (template.eos_token, template.pad_token, *template.trained_tokens):
        if token not in vocabulary:
            raise UserError(f"template.{template.name} names {token!r}, which the base tokenizer does not have")
    tokenizer.save_pretrained(folder)
    stop = sorted({vocabulary["<|end_of_text|>"], tokenizer.eos_token_id})
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"eos_token_id": stop, "pad_token_id": tokenizer.pad_token_id})
    generation = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=stop, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    generation.save_pretrained(folder)


def rename_tokens(path: Path, renamed: dict[str, str]) -> None:
    """Rename added tokens in a tokenizer.json; ids stay."""
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    missing = set(renamed) - {entry["content"] for entry in tokenizer["added_tokens"]}
    if missing:
        raise UserError(f"template.renamed_tokens names {sorted(missing)}, which the base tokenizer does not have")
    for entry in tokenizer["added_tokens"]:
        entry["content"] = renamed.get(entry["content"], entry["content"])
    write_json(path, tokenizer)
