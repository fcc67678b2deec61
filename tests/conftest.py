"""Fixtures: a real, very small model made by the stages' own code."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from stages.lib.base_model import from_scratch, install_template
from stages.lib.data_schema import Prepare
from stages.lib.files import write_jsonl
from stages.lib.sample import dialogues
from stages.lib.schema import Scratch, Template
from stages.lib.train_schema import Launch, Lora, Train

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "llama.cpp"))

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


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """As on a disk that fills up: no file of this process may grow beyond `size` bytes."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


def conversations(count: int) -> list[dict]:
    """Sample dialogues as rows of messages."""
    return [
        {
            "id": str(i),
            "source": "sample",
            "messages": [
                {"role": "system", "content": d["instruction"]},
                {"role": "user", "content": d["input"]},
                {"role": "assistant", "content": d["output"]},
            ],
        }
        for i, d in enumerate(dialogues(ROOT / "data/sample", count, seed=7))
    ]


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
        "precision": "fp32",
        "attention": "documents",
        "optim": "adamw_torch_fused",
        "torch_compile": False,
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
        "explosion_factor": 5.0,
    }
    return Train(**settings | changes)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    rows = conversations(120)
    write_jsonl(folder / "train.jsonl", rows[:100])
    write_jsonl(folder / "validation.jsonl", rows[100:110])
    write_jsonl(folder / "test.jsonl", rows[110:])
    return folder


@pytest.fixture(scope="session")
def base(prepared, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    folder.mkdir()
    from_scratch(SHAPE, prepared / "train.jsonl", folder, seed=1)
    install_template(folder, CHATML)
    return folder


@pytest.fixture(scope="session")
def tokenized(prepared, base, tmp_path_factory) -> Path:
    from stages import tokenize

    folder = tmp_path_factory.mktemp("tokenized") / "tokenized"
    tokenize.main(CHATML.end_token, 512, prepared, base, folder, folder.parent / "tokenize.json")
    return folder


@pytest.fixture(scope="session")
def adapter(base, tokenized, tmp_path_factory) -> Path:
    from stages.lib.finetune import finetune
    from stages.lib.models import load_tokenizer

    folder = tmp_path_factory.mktemp("adapter")
    ids = load_tokenizer(base).convert_tokens_to_ids(CHATML.trained_tokens)
    train = train_settings(num_train_epochs=3)  # so that it learns to end its answers
    finetune(train, ids, 3, tokenized, base, folder / "checkpoints", folder / "adapter")
    return folder / "adapter"


@pytest.fixture(scope="session")
def merged(base, adapter, tmp_path_factory) -> Path:
    from stages.lib.merging import merge

    folder = tmp_path_factory.mktemp("merged") / "merged"
    merge(base, adapter, folder)
    return folder


@pytest.fixture(scope="session")
def gguf(merged, tmp_path_factory) -> Path:
    from stages.lib import llamacpp

    path = tmp_path_factory.mktemp("gguf") / "llama3-chat-doctor-f16.gguf"
    llamacpp.convert(merged, path, {})
    return path
