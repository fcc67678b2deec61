"""Memory that a model takes beside its weights while it reads and writes texts."""

LIBRARIES = 1.3e9  # bytes: torch and its like, an adapter, what loading leaves behind


def head_width(config: dict) -> int:
    """Numbers of a token's query in one attention head."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def key_width(config: dict) -> int:
    """Numbers of a token's keys in one layer, and of its values; without groups each head has its own."""
    return (config.get("num_key_value_heads") or config["num_attention_heads"]) * head_width(config)


def beside_weights(config: dict, tokens: int, scored: int, itemsize: int) -> float:
    """Bytes beside a model's weights for a batch of `tokens`, of which at most `scored` have logits at a time.

    They have keys and values in every layer, and either a layer's feed-forward part at work or the logits, once as they
    are made and once put together. `config` is the model's config.json, `itemsize` the bytes of a number.
    """
    keys = 2 * config["num_hidden_layers"] * key_width(config) * tokens
    feed_forward = 3 * config["intermediate_size"] * tokens
    logits = 2 * config["vocab_size"] * min(scored, tokens)
    return itemsize * (keys + max(feed_forward, logits)) + LIBRARIES
