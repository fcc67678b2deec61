"""Llama-3's real tokenizer, rebuilt from the vocabulary file that llama.cpp carries."""

from pathlib import Path

from transformers import AutoTokenizer

from stages.lib.base.template import install_template
from stages.lib.core.files import read_json, write_json
from stages.lib.export.llamacpp import home
from stages.lib.settings.template import Template

WORDS = 128_256


def llama3_tokenizer(folder: Path, template: Template) -> None:
    """Write the tokenizer of Llama-3, 128,256 words, with a chat template into a folder.

    The loader of transformers adds `<|endoftext|>` as word 128,256, which the model does not have; it goes.
    """
    models = home() / "models"
    AutoTokenizer.from_pretrained(models, gguf_file="ggml-vocab-llama-bpe.gguf").save_pretrained(folder)
    tokenizer = read_json(folder / "tokenizer.json")
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < WORDS]
    tokenizer["model"]["vocab"] = {word: i for word, i in tokenizer["model"]["vocab"].items() if i < WORDS}
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "tokenizer_config.json", {"bos_token": "<|begin_of_text|>"})
    config = {"model_type": "llama", "vocab_size": WORDS, "max_position_embeddings": 8192, "eos_token_id": 128001}
    write_json(folder / "config.json", config)
    install_template(folder, template)
