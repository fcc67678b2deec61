"""Fixtures: a real, very small model made by the stages' own code."""

import os
import sys
from pathlib import Path

import pytest

import support.gpu  # noqa: F401 (hides it, before torch is imported)
from stages.lib.core.files import write_jsonl
from support.kinds import KINDS, LLAMA3, Kind, make_base
from support.sample import conversations
from support.settings import ROOT, train_settings

sys.path.insert(0, str(ROOT / "llama.cpp"))
os.environ.setdefault("LLAMA_CPP_DIR", str(ROOT / "llama.cpp/build"))  # also of a stage whose checkout is elsewhere


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    rows = conversations(120)
    write_jsonl(folder / "train.jsonl", rows[:100])
    write_jsonl(folder / "validation.jsonl", rows[100:110])
    write_jsonl(folder / "test.jsonl", rows[110:])
    return folder


def pytest_generate_tests(metafunc) -> None:
    """In a module with `EVERY_KIND = True`, whatever needs a base is tried with every kind of base."""
    if getattr(metafunc.module, "EVERY_KIND", False) and "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS, indirect=True, scope="session", ids=str)


@pytest.fixture(scope="session")
def kind(request) -> Kind:
    """Which kind of Llama the base is: Llama-3's but in modules with `EVERY_KIND`."""
    return getattr(request, "param", LLAMA3)


@pytest.fixture(scope="session")
def base(kind, prepared, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    folder.mkdir()
    make_base(kind, prepared / "train.jsonl", folder)
    return folder


@pytest.fixture(scope="session")
def tokenized(prepared, base, tmp_path_factory) -> Path:
    from stages import tokenize

    folder = tmp_path_factory.mktemp("tokenized") / "tokenized"
    tokenize.main(512, "drop", prepared, base, folder, folder.parent / "tokenize.json")
    return folder


@pytest.fixture(scope="session")
def adapter(base, tokenized, tmp_path_factory) -> Path:
    from stages.lib.model.loading import trained_token_ids
    from stages.lib.training.trainer import Places, finetune

    folder = tmp_path_factory.mktemp("adapter")
    ids = trained_token_ids(base)
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
