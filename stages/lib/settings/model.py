"""The shape of the `model` section of params.yaml: where the base comes from."""

from dataclasses import dataclass

from stages.lib.core.checks import at_least, check, positive


@dataclass
class Scratch:
    """A model of Llama-3's architecture that is trained from scratch."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    rope_theta: float
    max_position_embeddings: int
    learning_rate: float
    batch_size: int
    max_length: int
    num_train_steps: int

    def __post_init__(self) -> None:
        key = "model.scratch"
        positive(key, self, *vars(self))
        width, heads, groups = self.hidden_size, self.num_attention_heads, self.num_key_value_heads
        for name in ("hidden_size", "intermediate_size"):
            check(f"{key}.{name}", getattr(self, name), getattr(self, name) % 256 == 0, "a multiple of 256")
        check(f"{key}.num_attention_heads", heads, width % heads == 0, "a divisor of hidden_size")
        check(f"{key}.num_key_value_heads", groups, heads % groups == 0, "a divisor of num_attention_heads")
        at_least(key, self, vocab_size=512)  # 256 bytes and 256 special tokens


@dataclass
class Hub:
    """A repository of the Hugging Face Hub."""

    repo: str
    revision: str
    gigabytes: float


@dataclass
class Model:
    """The base: from the hub or from scratch."""

    name: str
    licence: str
    hub: Hub | None
    scratch: Scratch | None

    def __post_init__(self) -> None:
        got = "both" if self.hub and self.scratch else "neither"
        check("model", got, bool(self.hub) != bool(self.scratch), "either model.hub or model.scratch")
