"""The chat template, installed into a base: markers, EOS and padding token; no token id changes."""

import json
from pathlib import Path

from tokenizers import Tokenizer, processors
from transformers import GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, write_json
from stages.lib.model import chat
from stages.lib.model.loading import TRAINED_TOKENS, load_tokenizer
from stages.lib.settings.template import Template

RESERVED = "<|reserved_special_token_"  # Llama-3's, which no text of its training held
BOS = "{{ bos_token }}"
DATE = "26 Jul 2024"  # the one that Llama-3.1's template has; a template that asks the clock would render no text twice
STOPPED_CLOCK = f"{{% macro strftime_now(format) %}}{DATE}{{% endmacro %}}"


def install_template(folder: Path, template: Template) -> None:
    """Give a base the template, or keep its own, and set EOS and padding token; no token id changes.

    A marker that the vocabulary lacks takes one of Llama-3's reserved tokens, whose row is then trained. BOS stands in
    front where the base's own tokenizer puts it. EOS is the token that the template has behind an answer. Raises
    UserError where the base has no template of its own and none is given, or lacks a token that the template needs.
    """
    trained = take_reserved(folder / "tokenizer.json", template)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))  # without what its tokenizer_config.json adds
    own = _own_tokenizer(folder, backend)
    if backend.post_processor is None:  # the GGUF would not say that no BOS is put, and llama.cpp might put one
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=own.bos_token,
        eos_token=own.eos_token,  # which its own template may name
        chat_template=_rendering(own, template),
        model_max_length=read_json(folder / "config.json")["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.eos_token = chat.end_of_answer(tokenizer)
    tokenizer.pad_token = _padding(tokenizer, template, trained)
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)  # an older format, which would overrule it
    tokenizer.save_pretrained(folder)
    write_json(folder / TRAINED_TOKENS, trained)
    _write_stop_ids(folder, tokenizer)


def take_reserved(path: Path, template: Template) -> list[str]:
    """Rename reserved tokens of a tokenizer.json to the markers that it lacks, and return these; ids stay."""
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    added = {entry["content"]: entry for entry in tokenizer["added_tokens"]}
    missing = [marker for marker in template.markers if marker not in added]
    free = [name for name in added if name.startswith(RESERVED) and name not in template.pad_tokens]
    if len(free) < len(missing):
        raise UserError(
            f"template.{template.name} needs {', '.join(missing)}, which the base tokenizer does not have, nor "
            "reserved tokens to take for them; keep its own template with `-S template=own`"
        )
    for marker, name in zip(missing, free, strict=False):
        added[name]["content"] = marker
    if missing:
        write_json(path, tokenizer)
    return missing


def _own_tokenizer(folder: Path, known: Tokenizer) -> PreTrainedTokenizerBase:
    """The base's tokenizer, which splits text as its tokenizer.json says and not as the class does that it names.

    SmolLM2 names GPT2Tokenizer, which keeps digits together (transformers 5.23). Raises UserError where its BOS or EOS
    is not `known`.
    """
    path = folder / "tokenizer_config.json"
    if path.is_file():
        named = read_json(path)
        named.pop("tokenizer_class", None)
        tokens = {key: value for key, value in named.items() if isinstance(value, dict) and "content" in value}
        write_json(path, named | {key: value["content"] for key, value in tokens.items()})
    own = load_tokenizer(folder)
    for token in (own.bos_token, own.eos_token):
        if token is not None and known.token_to_id(token) is None:
            raise UserError(f"{path}: {token!r} is no token of the base's tokenizer.json; correct it there")
    first = known.encode("a").tokens[0]
    if own.bos_token is None and first in own.added_tokens_encoder:
        raise UserError(f"{path}: no bos_token, but tokenizer.json puts {first!r} in front of a text; name it there")
    return own


def _rendering(own: PreTrainedTokenizerBase, template: Template) -> str:
    """The template's text, with BOS in front where the base's tokenizer puts it; its own one stays as it is."""
    if template.chat_template is not None:
        return (BOS if chat.puts_bos(own) else "") + template.chat_template
    kept = own.chat_template
    if isinstance(kept, dict):
        kept = kept.get("default")
    if not kept:
        raise UserError(
            f"template.{template.name} keeps the base's own chat template, and it has none; "
            "choose one with `-S template=chatml` or `-S template=llama3`"
        )
    return f"{STOPPED_CLOCK}{kept}" if "strftime_now" in kept else kept


def _padding(tokenizer: PreTrainedTokenizerBase, template: Template, trained: list[str]) -> str:
    vocabulary = tokenizer.get_vocab()
    unfit = {tokenizer.eos_token, *trained}
    for token in template.pad_tokens:
        if token in vocabulary and token not in unfit:
            return token
    raise UserError(
        f"template.pad_tokens: the base tokenizer has none of {', '.join(template.pad_tokens)} but its EOS; "
        "add one of its other special tokens"
    )


def _write_stop_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have config and generation config list the ids that end an answer: the base's own and the template's EOS."""
    config = read_json(folder / "config.json")
    stop = {tokenizer.eos_token_id}
    for name in ("config.json", "generation_config.json"):
        listed = read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        stop |= set(listed if isinstance(listed, list) else [] if listed is None else [listed])
    ids = {"eos_token_id": sorted(stop), "pad_token_id": tokenizer.pad_token_id}
    write_json(folder / "config.json", config | ids)
    GenerationConfig(bos_token_id=tokenizer.bos_token_id, do_sample=False, **ids).save_pretrained(folder)
