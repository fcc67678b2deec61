"""Settings of tests: conf/'s own templates, the smallest shapes, short trainings."""

from pathlib import Path

from omegaconf import OmegaConf

from stages.lib.settings.data import Prepare
from stages.lib.settings.model import Scratch
from stages.lib.settings.template import Template
from stages.lib.settings.train import Launch, Lora, Train

ROOT = Path(__file__).resolve().parents[2]
CHATML = Template(**OmegaConf.to_object(OmegaConf.load(ROOT / "conf/template/chatml.yaml")))
LLAMA3 = Template(**OmegaConf.to_object(OmegaConf.load(ROOT / "conf/template/llama3.yaml")))
SHAPE = Scratch(
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=4,
    vocab_size=1024,
    rope_theta=500000.0,
    max_position_embeddings=512,
    learning_rate=2e-3,
    batch_size=4,
    max_length=128,
    num_train_steps=40,
)


def prepare_settings(**changes) -> Prepare:
    """conf/data/prepare.yaml with changes."""
    read = OmegaConf.load(ROOT / "conf/data/prepare.yaml").prepare
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Prepare), read, changes))


def train_settings(**changes) -> Train:
    """Settings of a short training; r, lora_dropout and target_modules go into its `lora` section."""
    adapter = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": "all-linear"}
    adapter |= {name: changes.pop(name) for name in adapter if name in changes}
    settings = {
        "method": "lora",
        "quantization": "none",
        "lora": Lora(**adapter),
        "launch": Launch(strategy="single", processes=1, nodes=1, rendezvous="localhost:29400"),
        "max_length": 512,
        "too_long": "drop",
        "precision": "fp32",
        "attention": "documents",
        "optim": "adamw_torch_fused",
        "torch_compile": False,
        "use_liger_kernel": False,
        "gradient_checkpointing": False,
        "activation_offload": False,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 1,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "max_grad_norm": 1.0,
        "eval_steps": 2,
        "save_steps": 2,
        "load_best_model_at_end": False,
        "early_stopping_patience": 0,
        "spike_factor": 2.0,
        "divergence_factor": 5.0,
    }
    return Train(**settings | changes)
