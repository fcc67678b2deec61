"""Fixtures: a real, very small model made by the stages' own code."""

import sys
from pathlib import Path

import pytest

from stages.lib.base.scratch import from_scratch
from stages.lib.base.template import install_template
from stages.lib.core.files import write_jsonl
from support.sample import conversations
from support.settings import CHATML, ROOT, SHAPE, train_settings

sys.path.insert(0, str(ROOT / "llama.cpp"))


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
    tokenize.main(CHATML.eos_token, 512, prepared, base, folder, folder.parent / "tokenize.json")
    return folder


@pytest.fixture(scope="session")
def adapter(base, tokenized, tmp_path_factory) -> Path:
    from stages.lib.model.loading import load_tokenizer
    from stages.lib.training.trainer import Places, finetune

    folder = tmp_path_factory.mktemp("adapter")
    ids = load_tokenizer(base).convert_tokens_to_ids(CHATML.trained_tokens)
    train = train_settings(num_train_epochs=6)  # so that it learns to end its answers
    finetune(train, ids, 3, Places(tokenized, base, folder / "checkpoints", folder / "adapter"))
    return folder / "adapter"


@pytest.fixture(scope="session")
def merged(base, adapter, tmp_path_factory) -> Path:
    from stages.lib.export.merging import merge

    folder = tmp_path_factory.mktemp("merged") / "merged"
    merge(base, adapter, folder)
    return folder


@pytest.fixture(scope="session")
def gguf(merged, tmp_path_factory) -> Path:
    from stages.lib.export import llamacpp

    path = tmp_path_factory.mktemp("gguf") / "llama3-chat-doctor-f16.gguf"
    llamacpp.convert(merged, path, {})
    return path
