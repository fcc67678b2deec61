"""Llama-3's real tokenizer, rebuilt from the vocabulary file that llama.cpp carries."""

from pathlib import Path

from stages.lib.base.gguf_file import read_gguf
from stages.lib.base.gguf_tokenizer import write_tokenizer
from stages.lib.base.template import install_template
from stages.lib.core.files import write_json
from stages.lib.core.resources import llama_cpp_build
from stages.lib.settings.template import Template

WORDS = 128_256


def llama3_tokenizer(folder: Path, template: Template) -> None:
    """Write the tokenizer of Llama-3, 128,256 tokens, with a chat template into a folder."""
    fields = read_gguf(llama_cpp_build() / "models" / "ggml-vocab-llama-bpe.gguf").fields
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer({key: field.contents() for key, field in fields.items()}, folder)
    config = {"model_type": "llama", "vocab_size": WORDS, "max_position_embeddings": 8192, "eos_token_id": 128001}
    write_json(folder / "config.json", config)
    install_template(folder, template)
