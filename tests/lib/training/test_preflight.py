"""What the stages after a training need is asked before it starts."""

import logging
import shutil
from collections import namedtuple

import pytest

from bench.memory import LLAMA_3_8B
from stages import train
from stages.lib.core.errors import UserError
from stages.lib.training import preflight, shapes
from support.settings import train_settings
from support.training import arguments

LORA = {"r": 64, "lora_alpha": 128, "max_length": 2048, "precision": "bf16", "quantization": "8bit"}


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many GB of disk, of memory and of a GPU's memory."""

    def have(disk: float, memory: float, gpu: float = 0) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, disk * 1e9))
        monkeypatch.setattr(preflight, "free_memory", lambda where: (gpu if where == "cuda" else memory) * 1e9)

    return have


def test_the_8b_recipe_needs_what_its_parts_weigh(machine, caplog, tmp_path):
    """8.03e9 weights of 2 bytes; 168e6 trained ones of 4 bytes with 8 of AdamW's states, in three checkpoints."""
    recipe = train_settings(**LORA)
    assert shapes.parameters(LLAMA_3_8B) == pytest.approx(8.03e9, rel=1e-3)
    sizes = preflight.disk(LLAMA_3_8B, recipe)
    assert sizes["merged model"] == sizes["float16 GGUF"] == pytest.approx(16.06e9, rel=1e-3)
    assert sizes["checkpoints"] == pytest.approx(3 * 12 * 167.8e6, rel=1e-3)
    caplog.set_level(logging.INFO)
    machine(disk=70, memory=19.5)
    preflight.require(LLAMA_3_8B, recipe, tmp_path, tmp_path, "cpu")
    assert "63.5 GB of disk (checkpoints 6.0, adapter 0.7, merged model 16.1" in caplog.text
    assert "19.5 GB of memory, 19.5 GB are free" in caplog.text


@pytest.mark.parametrize(
    ("disk", "memory", "device", "said"),
    [
        (50, 100, "cpu", r"63\.5 GB of disk \(.*\), 50\.0 GB are free; free that much, or take another"),
        (100, 16, "cpu", r"19\.5 GB of memory, 16\.0 GB are free; free"),
        (100, 16, "cuda", r"19\.5 GB of the GPU's memory, 16\.0 GB are free; free"),
        (50, 16, "cpu", r"63\.5 GB of disk \(.*\), 50\.0 GB are free; 19\.5 GB of memory, 16\.0 GB are free; free"),
    ],
)
def test_what_is_short_is_one_sentence(disk, memory, device, said, machine, tmp_path):
    machine(disk, memory, gpu=memory)
    with pytest.raises(
        UserError, match=f"^training could end, but not the stages after it, which need about {said}"
    ) as refusal:
        preflight.require(LLAMA_3_8B, train_settings(**LORA), tmp_path, tmp_path, device)
    assert "\n" not in str(refusal.value)


def test_a_gpu_that_is_too_small_leaves_the_later_stages_to_the_machine(machine, caplog, tmp_path):
    machine(disk=100, memory=32, gpu=16)
    preflight.require(LLAMA_3_8B, train_settings(**LORA), tmp_path, tmp_path, "cuda")
    assert "the GPU is too small for them: run them with CUDA_VISIBLE_DEVICES= in front" in caplog.text
    caplog.clear()
    machine(disk=100, memory=32, gpu=20)
    preflight.require(LLAMA_3_8B, train_settings(**LORA), tmp_path, tmp_path, "cuda")
    assert not caplog.text


def test_checkpoints_that_are_there_need_no_room_again(machine, tmp_path):
    """With 63.5 GB free it begins; after 4 GB of checkpoints, 59.5 are free, and the same command goes on."""
    checkpoint = tmp_path / "key/checkpoint-200"
    checkpoint.mkdir(parents=True)
    with (checkpoint / "optimizer.pt").open("wb") as file:
        file.truncate(4 * 10**9)  # bytes, none of them on the disk
    machine(disk=59.6, memory=32)
    preflight.require(LLAMA_3_8B, train_settings(**LORA), tmp_path, tmp_path / "key", "cpu")
    with pytest.raises(UserError, match=r"63\.5 GB of disk"):
        preflight.require(LLAMA_3_8B, train_settings(**LORA), tmp_path, tmp_path / "another", "cpu")


def test_training_asks_before_it_loads_a_weight(base, tokenized, tmp_path, machine, monkeypatch):
    monkeypatch.setattr("stages.lib.training.adapters.load_model", lambda *_: pytest.fail("weights were loaded"))
    machine(disk=0, memory=100)
    with pytest.raises(UserError, match="training could end"):
        train.main(*arguments(tokenized, base, tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr("stages.lib.training.adapters.load_model", lambda *_: pytest.fail("weights were loaded"))
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"no llama\.cpp build there"):
        train.main(*arguments(tokenized, base, tmp_path))
