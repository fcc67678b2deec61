"""What a base is, in the few facts by which a reader of the report knows it."""

import math
from pathlib import Path
from typing import Any

from stages.lib.core.files import read_json
from stages.lib.model import chat
from stages.lib.model.loading import TRAINED_TOKENS, load_tokenizer
from stages.lib.model.weights import DEQUANTISED_FROM, stored_in


def of(folder: Path) -> dict[str, Any]:
    """Its weights, vocabulary, rotary positions and tokens, of a base whose template is installed."""
    config = read_json(folder / "config.json")
    tokenizer = load_tokenizer(folder)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {
        "parameters": sum(math.prod(one.shape) for one in stored_in(folder).values()),
        "layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "vocabulary": config["vocab_size"],
        "tied_embeddings": bool(config.get("tie_word_embeddings")),
        "rope_type": rope.get("rope_type", "default"),
        "bos": tokenizer.bos_token if chat.puts_bos(tokenizer) else None,
        "eos": tokenizer.eos_token,
        "trained_tokens": read_json(folder / TRAINED_TOKENS),
        "dequantised_from": config.get(DEQUANTISED_FROM),
    }
