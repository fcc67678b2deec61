"""Checkpoints belong to one training: whatever decides its weights is in their key, and nothing else."""

import ast
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from stages.lib.core.errors import UserError
from stages.lib.settings.train import Launch, Lora
from stages.lib.training import checkpoints
from support.settings import ROOT, train_settings

# What the trainer imports besides checkpoints.CODE, and why it cannot change the weights of a training.
ELSEWHERE = {
    "core/checks.py": "refuses settings",
    "core/errors.py": "the exception of a refusal",
    "core/files.py": "writes files whole or not at all",
    "core/paths.py": "where the checkpoints are",
    "core/resources.py": "names the processor; what follows from it is in the settings",
    "model/allocator.py": "where freed memory stays",
    "model/device.py": "which device there is; how much memory is free",
    "model/inference_memory.py": "widths, for the estimate of memory",
    "model/chat.py": "tokenize calls it: its results are in data/tokenized; the trainer reads the label IGNORED there",
    "model/weights.py": "the hash of the base, which tells an adapter whose it is",
    "settings/train.py": "the names and bounds of the settings, whose values are in the key",
    "training/checkpoints.py": "where checkpoints are; which one is the newest, step numbers say",
    "training/hardware.py": "what it decides is in the settings; else it reads how much memory was taken",
    "training/launch.py": "starts the trainer's processes; how many is in the settings",
    "training/memory.py": "says what to change where a GPU's memory was too small",
    "training/memory_estimate.py": "how much memory a training takes",
    "training/memory_layer.py": "the same, of a layer",
    "training/memory_sizes.py": "the sizes that it is made of",
    "training/shapes.py": "the shapes of a base's matrices, for that estimate",
    "training/interrupt.py": "notes a signal; the step that runs is finished",
    "training/monitor.py": "looks on, and stops after a whole step",
}


def imported_by(path: Path) -> set[Path]:
    """The first-party modules below stages/lib that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("stages.lib"):
            module = ROOT / node.module.replace(".", "/")
            found |= {module.with_suffix(".py"), *(module / f"{alias.name}.py" for alias in node.names)}
    return {file for file in found if file.is_file()}


def test_every_module_of_the_trainer_is_in_the_key_or_has_a_reason():
    todo = [checkpoints.LIB / "training/trainer.py"]
    reached = set()
    while todo:
        path = todo.pop()
        if path not in reached:
            reached.add(path)
            todo += imported_by(path)
    names = {path.relative_to(checkpoints.LIB).as_posix() for path in reached}
    assert names == {*checkpoints.CODE, *ELSEWHERE}
    assert not set(checkpoints.CODE) & ELSEWHERE.keys()


@pytest.fixture
def key(tmp_path, monkeypatch):
    """The key of a training by data and a copy of the code, which a test may change."""
    (tmp_path / "tokenized/train").mkdir(parents=True)
    (tmp_path / "tokenized/train/data.arrow").write_bytes(b"sequences")
    shutil.copytree(checkpoints.LIB, tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(checkpoints, "LIB", tmp_path / "lib")

    def of(train=train_settings(), seed=1) -> str:  # noqa: B008 (never changed)
        return checkpoints.key_of(train, seed, [tmp_path / "tokenized"])

    return of


def test_whatever_decides_the_weights_is_in_the_key(key, tmp_path):
    keys = [key(), key(seed=2), key(train_settings(learning_rate=0.5))]
    keys.append(key(replace(train_settings(), lora=Lora(8, 16, 0.5, "all-linear"))))
    for path in (tmp_path / "tokenized/train/data.arrow", *(tmp_path / "lib" / name for name in checkpoints.CODE)):
        with path.open("ab") as file:
            file.write(b"\n# a comment\n")
        keys.append(key())
    assert len(set(keys)) == len(keys)


def test_nothing_else_is_in_the_key(key, tmp_path):
    before = key()
    assert key(train_settings(spike_factor=9.0, divergence_factor=99.0, too_long="cut")) == before
    assert key(train_settings(launch=Launch("single", 1, 1, "elsewhere:1"))) == before
    for path in [path for path in (tmp_path / "lib").rglob("*") if path.is_file()]:
        if path.relative_to(tmp_path / "lib").as_posix() not in checkpoints.CODE:
            path.write_bytes(path.read_bytes() + b"\n# a comment\n")
    assert key() == before


def test_two_trainers_cannot_share_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with checkpoints.locked("key"), pytest.raises(UserError, match="another training run"), checkpoints.locked("key"):
        pass
