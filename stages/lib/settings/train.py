"""The shape of the `train` section of params.yaml, and what its values may be."""

import re
from dataclasses import dataclass
from typing import Any

from stages.lib.core.checks import at_least, check, one_of, positive

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # of a Llama layer


@dataclass
class Lora:
    """`train.lora`: the adapter's rank, scale and place."""

    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Any  # "all-linear" or a list of names, which OmegaConf has no type for

    def __post_init__(self) -> None:
        positive("train.lora", self, "r", "lora_alpha")
        check("train.lora.lora_dropout", self.lora_dropout, 0 <= self.lora_dropout < 1, "at least 0, below 1")
        modules = self.target_modules
        listed = isinstance(modules, list) and bool(modules) and set(modules) <= set(LINEAR)
        expected = f"all-linear, or a list of some of {', '.join(LINEAR)}"
        check("train.lora.target_modules", modules, listed or modules == "all-linear", expected)


@dataclass
class Launch:
    """`train.launch`: how many processes train together, and where they meet."""

    strategy: str
    processes: int
    nodes: int
    rendezvous: str

    def __post_init__(self) -> None:
        one_of("train.launch.strategy", self.strategy, ("single", "ddp", "fsdp"))
        positive("train.launch", self, "nodes")
        at_least("train.launch", self, processes=0)
        place = re.fullmatch(r"[^:\s]+:\d{1,5}", self.rendezvous) is not None
        check("train.launch.rendezvous", self.rendezvous, self.nodes == 1 or place, "HOST:PORT of the first machine")
        alone = self.processes == self.nodes == 1
        check("train.launch", vars(self), self.strategy != "single" or alone, "1 process on 1 node where single")


@dataclass
class Train:
    """`train`: what is trained, and how."""

    method: str
    quantization: str
    lora: Lora
    launch: Launch
    max_length: int
    too_long: str
    precision: str
    attention: str
    optim: str
    torch_compile: bool
    use_liger_kernel: bool
    gradient_checkpointing: bool
    activation_offload: bool
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    num_train_epochs: int
    learning_rate: float
    lr_scheduler_type: str
    warmup_ratio: float
    max_grad_norm: float
    eval_steps: int
    save_steps: int
    load_best_model_at_end: bool
    early_stopping_patience: int
    spike_factor: float
    divergence_factor: float

    def __post_init__(self) -> None:
        one_of("train.method", self.method, ("lora", "dora", "rslora", "full"))
        one_of("train.quantization", self.quantization, ("none", "8bit", "4bit"))
        one_of("train.too_long", self.too_long, ("drop", "cut"))
        one_of("train.precision", self.precision, ("auto", "bf16", "fp32"))
        one_of("train.attention", self.attention, ("auto", "documents", "flash_attention_2"))
        one_of("train.optim", self.optim, ("adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"))
        schedules = ("cosine", "linear", "constant", "constant_with_warmup")
        one_of("train.lr_scheduler_type", self.lr_scheduler_type, schedules)
        check("train.warmup_ratio", self.warmup_ratio, 0 <= self.warmup_ratio < 1, "at least 0, below 1")
        positive("train", self, "max_length", "per_device_train_batch_size", "gradient_accumulation_steps")
        positive("train", self, "num_train_epochs", "learning_rate", "max_grad_norm", "save_steps", "eval_steps")
        at_least("train", self, early_stopping_patience=0, spike_factor=1, divergence_factor=1)
        self._check_pairs()

    def _check_pairs(self) -> None:
        """Raise UserError where a value is possible by itself, but not beside another one."""
        if self.method == "full":
            self._expect("quantization", self.quantization == "none", "none where train.method is full")
        if self.launch.strategy == "fsdp":
            reason = (
                "none or 4bit where train.launch.strategy is fsdp, which cannot share out bitsandbytes' 8-bit weights"
            )
            self._expect("quantization", self.quantization != "8bit", reason)
        if not self.gradient_checkpointing:
            reason = "false where train.gradient_checkpointing is false"
            self._expect("activation_offload", not self.activation_offload, reason)
        if self.load_best_model_at_end:
            reason = f"a multiple of train.eval_steps={self.eval_steps}, so that the best model is saved"
            self._expect("save_steps", self.save_steps % self.eval_steps == 0, reason)
        else:
            reason = "0 where train.load_best_model_at_end is false"
            self._expect("early_stopping_patience", self.early_stopping_patience == 0, reason)

    def _expect(self, name: str, holds: bool, expected: str) -> None:
        check(f"train.{name}", getattr(self, name), holds, expected)
