"""The matrices of a Llama, from its config.json."""

from stages.lib.core.checks import check
from stages.lib.settings.train import LINEAR, Lora


def of_layer(config: dict) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of each linear layer of one decoder layer, by name."""
    hidden, middle, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    query, key = heads * width, config["num_key_value_heads"] * width
    sides = ((query, hidden), (key, hidden), (key, hidden), (hidden, query),
             (middle, hidden), (middle, hidden), (hidden, middle))  # fmt: skip
    return dict(zip(LINEAR, sides, strict=True))


def adapted(config: dict, lora: Lora) -> dict[str, tuple[int, int]]:
    """Those of them that an adapter is added to."""
    chosen = LINEAR if lora.target_modules == "all-linear" else lora.target_modules
    return {name: sides for name, sides in of_layer(config).items() if name in chosen}


def unquantized(config: dict) -> int:
    """Weights that are never quantised: embedding, output matrix (where it is not the same one) and norms."""
    matrices = 1 if config.get("tie_word_embeddings") else 2
    return (matrices * config["vocab_size"] + 2 * config["num_hidden_layers"] + 1) * config["hidden_size"]


def learning(config: dict, method: str, lora: Lora) -> int:
    """Weights that learn; an adapter's few rows of the vocabulary are left out."""
    layers = config["num_hidden_layers"]
    if method == "full":
        return layers * sum(rows * columns for rows, columns in of_layer(config).values()) + unquantized(config)
    matrices = adapted(config, lora).values()
    lengths = sum(rows for rows, _ in matrices) if method == "dora" else 0
    return layers * (lora.r * sum(rows + columns for rows, columns in matrices) + lengths)


def check_rank(config: dict, lora: Lora) -> None:
    """Raise UserError where r is above the smallest side of an adapted matrix: more rank than the matrix can have."""
    name, sides = min(adapted(config, lora).items(), key=lambda item: min(item[1]))
    expected = f"at most {min(sides)}: {name} of this base is {sides[0]} × {sides[1]}"
    check("train.lora.r", lora.r, lora.r <= min(sides), expected)
