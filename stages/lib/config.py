"""The one reader of params.yaml: its schema, the checks of its values, the sections of a stage."""

from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stages.lib.errors import UserError
from stages.lib.paths import PARAMS
from stages.lib.quant_types import QUANT_TYPES

# The schema has no defaults: values live only in conf/.


@dataclass
class Source:
    name: str
    kind: str
    path: str
    sha256: str
    repo: str
    revision: str
    licence: str
    count: int

    def __post_init__(self) -> None:
        names = ("chatdoctor", "medqa_train", "medqa_test")
        check("data.sources[].name", self.name, self.name in names, f"one of {', '.join(names)}")
        check("data.sources[].kind", self.kind, self.kind in ("sample", "file", "hub"), "sample, file or hub")


@dataclass
class Prepare:
    min_words: int
    ngram: int
    threshold: float
    num_perm: int
    validation: float
    test: float

    def __post_init__(self) -> None:
        check("data.prepare.min_words", self.min_words, self.min_words >= 1, "at least 1")
        check("data.prepare.ngram", self.ngram, self.ngram >= 1, "at least 1")
        check("data.prepare.threshold", self.threshold, 0 < self.threshold <= 1, "above 0, at most 1")
        check("data.prepare.num_perm", self.num_perm, self.num_perm >= 16, "at least 16")
        check("data.prepare.validation", self.validation, 0 < self.validation < 0.5, "between 0 and 0.5")
        check("data.prepare.test", self.test, 0 < self.test < 0.5, "between 0 and 0.5")


@dataclass
class Data:
    name: str
    synthetic: bool
    chatdoctor: str | None
    medqa_train: str | None
    medqa_test: str | None
    sources: list[Source]
    prepare: Prepare


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
        for name in ("hidden_size", "intermediate_size"):
            value = getattr(self, name)
            check(f"model.scratch.{name}", value, value > 0 and value % 256 == 0, "a positive multiple of 256")
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        check(
            "model.scratch.num_attention_heads",
            heads,
            heads > 0 and self.hidden_size % heads == 0,
            "a divisor of hidden_size",
        )
        check(
            "model.scratch.num_key_value_heads",
            groups,
            groups > 0 and heads % groups == 0,
            "a divisor of num_attention_heads",
        )
        check(
            "model.scratch.vocab_size", self.vocab_size, self.vocab_size >= 512, "at least 512 (256 bytes, 256 special)"
        )
        for name in ("num_hidden_layers", "max_length", "batch_size", "num_train_steps"):
            positive(f"model.scratch.{name}", getattr(self, name))
        positive("model.scratch.learning_rate", self.learning_rate)


@dataclass
class Hub:
    repo: str
    revision: str
    gigabytes: float


@dataclass
class Model:
    name: str
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
        check(
            "template.pad_token", self.pad_token, self.pad_token != self.end_token, "another token than the end token"
        )


@dataclass
class Lora:
    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: str

    def __post_init__(self) -> None:
        positive("train.lora.r", self.r)
        positive("train.lora.lora_alpha", self.lora_alpha)
        check("train.lora.lora_dropout", self.lora_dropout, 0 <= self.lora_dropout < 1, "at least 0, below 1")


@dataclass
class Train:
    method: str
    quantization: str
    lora: Lora
    max_length: int
    precision: str
    gradient_checkpointing: bool
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    num_train_epochs: int
    learning_rate: float
    lr_scheduler_type: str
    warmup_ratio: float
    save_steps: int
    eval_steps: int
    logging_steps: int

    def __post_init__(self) -> None:
        check("train.method", self.method, self.method == "lora", "lora")
        check(
            "train.quantization", self.quantization, self.quantization in ("none", "8bit", "4bit"), "none, 8bit or 4bit"
        )
        check("train.precision", self.precision, self.precision in ("bf16", "fp32"), "bf16 or fp32")
        schedules = ("cosine", "linear", "constant", "constant_with_warmup")
        check(
            "train.lr_scheduler_type", self.lr_scheduler_type, self.lr_scheduler_type in schedules, ", ".join(schedules)
        )
        check("train.warmup_ratio", self.warmup_ratio, 0 <= self.warmup_ratio < 1, "at least 0, below 1")
        for name in (
            "max_length",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "num_train_epochs",
            "learning_rate",
            "save_steps",
            "eval_steps",
            "logging_steps",
        ):
            positive(f"train.{name}", getattr(self, name))


@dataclass
class Export:
    types: list[str]

    def __post_init__(self) -> None:
        for kind in self.types:
            check("export.types", kind, kind in QUANT_TYPES, f"a quant type of llama.cpp: {', '.join(QUANT_TYPES)}")
        check("export.types", self.types, len(set(self.types)) == len(self.types), "each type once")
        check("export.types", self.types, 1 <= len(self.types) <= 9, "one to nine types")


@dataclass
class Measure:
    dialogues: int
    questions: int
    max_new_tokens: int
    context: int

    def __post_init__(self) -> None:
        check("evaluate.measure.dialogues", self.dialogues, self.dialogues >= 0, "at least 0")
        check("evaluate.measure.questions", self.questions, self.questions >= 0, "at least 0")
        positive("evaluate.measure.max_new_tokens", self.max_new_tokens)
        positive("evaluate.measure.context", self.context)


@dataclass
class Evaluate:
    models: dict[str, str]
    compared: list[str]
    measure: Measure


@dataclass
class Track:
    mode: str
    project: str

    def __post_init__(self) -> None:
        modes = ("offline", "online", "disabled")
        check("track.mode", self.mode, self.mode in modes, ", ".join(modes))


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


def load(params: Path = PARAMS) -> Config:
    """Read and validate params.yaml; raises UserError that names the full key of what is wrong."""
    if not params.is_file():
        raise UserError(
            f"{params}: no such file; compose it with `dvc exp run`, or restore it with `git checkout {params}`"
        )
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(params))
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = error.full_key or "(top level)"
        reason = str(error.msg or error).splitlines()[0]
        raise UserError(f"{params}: {key}: {reason}; mend it in conf/ or with -S {key}=…") from error
    except YAMLError as error:
        raise UserError(f"{params}: not valid YAML: {' '.join(str(error).split())}") from error


def section(settings: Config, key: str) -> Any:
    """The value at a dotted key, e.g. `data.prepare`."""
    return reduce(getattr, key.split("."), settings)


def check(key: str, got: object, holds: bool, expected: str) -> None:
    """Raise UserError naming the key, what was got and what was expected, unless the condition holds."""
    if not holds:
        raise UserError(f"params.yaml: {key} is {got!r}, expected {expected}; mend it in conf/ or with -S {key}=…")


def positive(key: str, value: float) -> None:
    check(key, value, value > 0, "a number above 0")
