"""Make the folder of the base model: from the hub or from scratch, then with the chat template."""

import json
import shutil
from pathlib import Path

import httpx2  # huggingface_hub's client
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from stages.lib import scratch
from stages.lib.errors import UserError
from stages.lib.files import read_json, read_jsonl, write_json
from stages.lib.schema import Hub, Scratch, Template

HUB_FILES = ["*.json", "*.safetensors", "LICENSE*", "USE_POLICY*"]


def download(hub: Hub, folder: Path) -> None:
    """Fetch the pinned revision's weights, config and tokenizer; checks the free disk first.

    Raises UserError where the disk is too small, the licence was not accepted, the token is missing or
    the hub cannot be reached.
    """
    folder.mkdir(parents=True)
    free = shutil.disk_usage(folder).free / 1e9
    if free < 1.1 * hub.gigabytes:
        raise UserError(
            f"{folder.parent}: {free:.1f} GB free, but {hub.repo} needs {1.1 * hub.gigabytes:.1f} GB; "
            "make room and run again"
        )
    where = f"{hub.repo} at revision {hub.revision}"
    try:
        snapshot_download(hub.repo, revision=hub.revision, local_dir=folder, allow_patterns=HUB_FILES)
    except GatedRepoError as error:
        raise UserError(
            f"{where} is gated: accept the licence on its hub page, then `export HF_TOKEN=...` "
            "with a token of that account"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{where} was not found, or HF_TOKEN is missing or not allowed to read it") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{where} could not be downloaded: {reason}; check the network and run again") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def from_scratch(shape: Scratch, train: Path, folder: Path, seed: int) -> None:
    """Train tokenizer and model on the plain text of the training dialogues; bfloat16 weights, as Llama-3's.

    Raises OSError where they cannot be written.
    """
    texts = [plain_text(row["messages"]) for _, row in read_jsonl(train)]
    tokenizer = scratch.train_tokenizer(texts, shape.vocab_size)
    bos, eos = tokenizer.token_to_id(scratch.BOS), tokenizer.token_to_id(scratch.EOS)
    config = LlamaConfig(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        vocab_size=shape.vocab_size,
        max_position_embeddings=shape.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=False,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    documents = [[*encoding.ids, eos] for encoding in tokenizer.encode_batch(texts)]
    model = scratch.pretrain(
        config,
        documents,
        shape.max_length,
        shape.batch_size,
        shape.num_train_steps,
        shape.learning_rate,
        seed,
    )
    try:
        model.to(torch.bfloat16).save_pretrained(folder)
    except SafetensorError as error:  # a full disk, as safetensors says it
        raise OSError(f"{folder} not written: {error}") from error
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json", {"bos_token": scratch.BOS, "model_max_length": shape.max_position_embeddings}
    )


def plain_text(messages: list[dict]) -> str:
    """A dialogue as a book would print it, without any marker."""
    return "\n\n".join(message["content"] for message in messages if message["role"] != "system")


def install_template(folder: Path, template: Template) -> None:
    """Rename reserved tokens to the template's markers and set end and pad tokens; no token id changes.

    Raises UserError where the vocabulary lacks a token that the template names.
    """
    rename_tokens(folder / "tokenizer.json", template.renamed_tokens)
    settings = read_json(folder / "tokenizer_config.json")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        bos_token=settings["bos_token"],
        eos_token=template.end_token,
        pad_token=template.pad_token,
        chat_template=template.chat_template,
        model_max_length=settings["model_max_length"],
        clean_up_tokenization_spaces=False,
    )
    vocabulary = tokenizer.get_vocab()
    for token in (template.end_token, template.pad_token, *template.trained_tokens):
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
