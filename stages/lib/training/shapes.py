"""The matrices of a Llama, from its config.json."""

from stages.lib.core.checks import check
from stages.lib.model.inference_memory import head_width, key_width
from stages.lib.settings.train import LINEAR, Lora


def of_layer(config: dict) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of each linear layer of one decoder layer, by name."""
    hidden = config["hidden_size"]
    middle = config["intermediate_size"]
    query = config["num_attention_heads"] * head_width(config)
    key = key_width(config)
    return {
        "q_proj": (query, hidden),
        "k_proj": (key, hidden),
        "v_proj": (key, hidden),
        "o_proj": (hidden, query),
        "gate_proj": (middle, hidden),
        "up_proj": (middle, hidden),
        "down_proj": (hidden, middle),
    }


def adapted(config: dict, lora: Lora) -> dict[str, tuple[int, int]]:
    """Those of them that an adapter is added to."""
    chosen = LINEAR if lora.target_modules == "all-linear" else lora.target_modules
    return {name: sides for name, sides in of_layer(config).items() if name in chosen}


def unquantized(config: dict) -> int:
    """Weights that are never quantised: embedding, output matrix (where it is not the same one) and norms."""
    matrices = 1 if config.get("tie_word_embeddings") else 2
    return (matrices * config["vocab_size"] + 2 * config["num_hidden_layers"] + 1) * config["hidden_size"]


def parameters(config: dict) -> int:
    """All weights of the model."""
    of_one_layer = sum(outputs * inputs for outputs, inputs in of_layer(config).values())
    return config["num_hidden_layers"] * of_one_layer + unquantized(config)


def trainable_parameters(config: dict, method: str, lora: Lora) -> int:
    """How many there are; the rows of the few tokens that an adapter learns are left out."""
    layers = config["num_hidden_layers"]
    if method == "full":
        return parameters(config)
    matrices = adapted(config, lora).values()
    lengths = sum(outputs for outputs, _ in matrices) if method == "dora" else 0
    return layers * (lora.r * sum(outputs + inputs for outputs, inputs in matrices) + lengths)


def check_rank(config: dict, lora: Lora) -> None:
    """Raise UserError where r is above the smallest side of an adapted matrix: more rank than the matrix can have."""
    name, sides = min(adapted(config, lora).items(), key=lambda item: min(item[1]))
    expected = f"at most {min(sides)}: {name} of this base is {sides[0]} × {sides[1]}"
    check("train.lora.r", lora.r, lora.r <= min(sides), expected)
