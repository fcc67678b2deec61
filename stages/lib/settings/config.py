"""The shape of params.yaml, and what its values may be. No defaults: values live only in conf/."""

from dataclasses import dataclass

from stages.lib.checks import at_least, check, one_of, positive
from stages.lib.data_schema import Data
from stages.lib.quant_types import QUANT_TYPES
from stages.lib.train_schema import Train

# What models are compared by; stages/lib/measures.py computes them.
MEASURE_NAMES = (
    "perplexity", "bits_per_byte", "bleu", "rouge_l", "chrf",
    "exact_match", "letter_exact_match", "generated_exact_match",
)  # fmt: skip


@dataclass
class Scratch:
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
    repo: str
    revision: str
    gigabytes: float


@dataclass
class Model:
    name: str
    licence: str
    hub: Hub | None
    scratch: Scratch | None

    def __post_init__(self) -> None:
        got = "both" if self.hub and self.scratch else "neither"
        check("model", got, bool(self.hub) != bool(self.scratch), "either model.hub or model.scratch")


@dataclass
class Template:
    name: str
    chat_template: str
    renamed_tokens: dict[str, str]
    trained_tokens: list[str]
    end_token: str
    pad_token: str

    def __post_init__(self) -> None:
        check("template.pad_token", self.pad_token, self.pad_token != self.end_token, "another token than end_token")


@dataclass
class Verify:
    dialogues: int
    prompts: int
    max_new_tokens: int
    context: int

    def __post_init__(self) -> None:
        positive("export.verify", self, "dialogues", "max_new_tokens", "context")
        at_least("export.verify", self, prompts=0)


@dataclass
class Export:
    types: list[str]
    verified: list[str]
    imatrix: bool
    imatrix_chunks: int
    verify: Verify

    def __post_init__(self) -> None:
        for kind in self.types:
            one_of("export.types", kind, QUANT_TYPES)
        positive("export", self, "imatrix_chunks")
        check("export.types", self.types, 1 <= len(set(self.types)) == len(self.types) <= 8, "one to eight, each once")


@dataclass
class Measure:
    dialogues: int
    answers: int
    questions: int
    shuffles: int
    max_new_tokens: int
    context: int

    def __post_init__(self) -> None:
        at_least("evaluate.measure", self, dialogues=0, answers=0, questions=0, shuffles=0)
        positive("evaluate.measure", self, "max_new_tokens", "context")


@dataclass
class Gates:
    strict: bool
    better: list[str]
    quantized_points: float
    quantized_perplexity: float
    stopped: float

    def __post_init__(self) -> None:
        at_least("evaluate.gates", self, quantized_points=0, quantized_perplexity=0, stopped=0)
        for name in self.better:
            one_of("evaluate.gates.better", name, MEASURE_NAMES)


@dataclass
class Evaluate:
    models: dict[str, str]
    compared: list[str]
    measure: Measure
    gates: Gates


@dataclass
class Track:
    mode: str
    project: str

    def __post_init__(self) -> None:
        one_of("track.mode", self.mode, ("offline", "online", "disabled"))


@dataclass
class Config:
    data: Data
    model: Model
    template: Template
    train: Train
    export: Export
    evaluate: Evaluate
    track: Track
    seed: int
    conf_digest: str
