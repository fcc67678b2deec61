"""Several processes train as one does: the same losses, also when one of them is killed on the way."""

import logging
import os
import random
import signal
import socket
from pathlib import Path

import psutil
import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json
from stages.lib.settings.train import Launch
from stages.lib.training import launch
from support.settings import train_settings
from support.training import arguments, started, wait_for

SEQUENCES = 24
EPOCHS = 3  # 18 optimiser steps of 4 packed sequences
LONG = {"num_train_epochs": EPOCHS, "learning_rate": 1e-3, "lora_dropout": 0.0, "save_steps": 5, "eval_steps": 5}


def losses(folder) -> list[float]:
    """Training and validation losses, in the order of the steps."""
    rows = [line.split(",") for line in (folder / "plots/loss.csv").read_text().splitlines()[1:]]
    return [float(value) for row in rows for value in row[4:6] if value]


def finish(process) -> str:
    _, errors = process.communicate(timeout=300)
    return errors


def workers(process) -> list[int]:
    """The ids of the processes that a launcher has started."""
    children = psutil.Process(process.pid).children()
    return [one.pid for one in children if "spawn_main" in " ".join(one.cmdline())]


def two_nodes() -> Launch:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return Launch(strategy="ddp", processes=1, nodes=2, rendezvous=f"localhost:{port}")


@pytest.fixture(scope="module")
def even(tokenized, tmp_path_factory):
    """Packed sequences that two processes share evenly; else Accelerate fills the last batch up with the first ones."""
    folder = tmp_path_factory.mktemp("even")
    load_from_disk(tokenized / "train").select(range(SEQUENCES)).save_to_disk(folder / "train")
    load_from_disk(tokenized / "validation").save_to_disk(folder / "validation")
    return folder


@pytest.fixture(scope="module")
def alone(even, base, tmp_path_factory):
    """A folder in which one process has trained with batches of 2 sequences × 2."""
    folder = tmp_path_factory.mktemp("alone")
    process = started(folder, arguments(even, base, folder, **LONG))
    errors = finish(process)
    assert process.returncode == 0, errors
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_of_which_one_is_killed_train_as_one_does(strategy, alone, even, base, tmp_path):
    """Batches of 2 sequences in two processes are one batch of 2 × 2; the same command goes on after the kill."""
    both = Launch(strategy=strategy, processes=2, nodes=1, rendezvous="")
    given = arguments(even, base, tmp_path, **LONG, launch=both, gradient_accumulation_steps=1)
    process = started(tmp_path, given)
    wait_for(process, lambda: list(tmp_path.glob(".checkpoints/*/checkpoint-5/trainer_state.json")))
    both_workers = workers(process)
    assert len(both_workers) == 2
    os.kill(random.choice(both_workers), signal.SIGKILL)
    errors = finish(process)
    assert process.returncode == 1 and "was killed by SIGKILL" in errors and "same command" in errors
    assert "Traceback" not in errors and not (tmp_path / "adapter").exists()

    process = started(tmp_path, given)
    errors = finish(process)
    assert process.returncode == 0, errors
    expected = losses(alone)
    assert len(expected) == SEQUENCES // 4 * EPOCHS + 4  # a validation loss every 5th step and after the last
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-4)
    ours, theirs = (load_file(folder / "adapter/adapter_model.safetensors") for folder in (tmp_path, alone))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in theirs) < 1e-3


def test_fsdp_in_bf16_loses_no_more_than_one_process_does(even, base, tmp_path):
    """Gradients are summed and losses handed out in float32."""
    changes = {"num_train_epochs": 1, "learning_rate": 1e-3, "precision": "bf16"}
    both = Launch(strategy="fsdp", processes=2, nodes=1, rendezvous="")
    for name, more in (("one", {}), ("two", {"launch": both, "gradient_accumulation_steps": 1})):
        process = started(tmp_path / name, arguments(even, base, tmp_path / name, **changes, **more))
        errors = finish(process)
        assert process.returncode == 0, errors
    ours, theirs = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)  # of the same weights; bfloat16 would round it by up to 4e-3
    assert ours == pytest.approx(theirs, rel=5e-3)


def test_each_process_takes_its_own_gpu_before_it_does_anything(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launch._work.__wrapped__(2, lambda: list(taken), ()) == [1]


@pytest.mark.parametrize(
    ("killer", "said"),
    [(signal.SIGABRT, "NCCL does so to a process that lost another one"), (signal.SIGKILL, "take a smaller batch")],
)
def test_what_killed_a_process_is_not_always_its_memory(killer, said):
    with pytest.raises(UserError, match=f"was killed by {killer.name}") as caught:
        launch.start(Launch(strategy="ddp", processes=1, nodes=1, rendezvous=""), signal.raise_signal, killer)
    assert said in str(caught.value) and str(caught.value).count("smaller batch") == (killer == signal.SIGKILL)


def test_dora_shards_among_processes_as_one_trains_it(even, base, tmp_path):
    """PEFT warns that the product of an adapter's factors fails under FSDP (`adapters.factors_product`)."""
    changes = {"method": "dora", "num_train_epochs": 1, "learning_rate": 1e-3}
    both = Launch(strategy="fsdp", processes=2, nodes=1, rendezvous="")
    for name, more in (("one", {}), ("two", {"launch": both, "gradient_accumulation_steps": 1})):
        process = started(tmp_path / name, arguments(even, base, tmp_path / name, **changes, **more))
        errors = finish(process)
        assert process.returncode == 0, errors
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    ours, theirs = (load_file(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("two", "one"))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in theirs) < 1e-3


def test_two_nodes_of_which_one_loses_its_process_go_on_and_the_first_writes(alone, even, base, tmp_path):
    """As two machines with a shared checkout would: the same settings on both, NODE_RANK on the second."""
    nodes = two_nodes()
    given = arguments(even, base, tmp_path, **LONG, launch=nodes, gradient_accumulation_steps=1)
    second = started(tmp_path, given, NODE_RANK="1")
    first = started(tmp_path, given)
    wait_for(first, lambda: list(tmp_path.glob(".checkpoints/*/checkpoint-5/trainer_state.json")))
    os.kill(*workers(second), signal.SIGKILL)
    for process, expected in ((second, "process 1 of 2 was killed by SIGKILL"), (first, "process 0 of 2 lost another")):
        errors = finish(process)
        assert process.returncode == 1 and expected in errors and "Traceback" not in errors

    second = started(tmp_path, given, NODE_RANK="1")
    first = started(tmp_path, given)
    assert (finish(first), first.returncode)[1] == 0 and (finish(second), second.returncode)[1] == 0
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-4)


def test_a_mistake_that_a_process_meets_is_one_sentence(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("torch"), "propagate", True)  # else caplog sees nothing of it
    caplog.set_level(logging.WARNING)
    with pytest.raises(UserError, match=r"^absent\.json: no such file$"):
        launch.start(Launch(strategy="ddp", processes=1, nodes=1, rendezvous=""), read_json, Path("absent.json"))
    assert "Traceback" not in caplog.text


def test_no_gpu_for_one_process_each_is_said():
    with pytest.raises(UserError, match=r"train.launch.processes is 0.*no GPU was found"):
        launch.start(Launch(strategy="ddp", processes=0, nodes=1, rendezvous=""), train_settings)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_machine_that_is_left_alone_says_so(rank, monkeypatch):
    monkeypatch.setenv("NODE_RANK", rank)
    monkeypatch.setattr(launch, "RENDEZVOUS_TIMEOUT", 2)
    with pytest.raises(UserError, match=r"not all 2 machines met at train.launch.rendezvous=localhost:.*NODE_RANK=1"):
        launch.start(two_nodes(), train_settings)


def test_a_place_to_meet_has_a_host_and_a_port():
    with pytest.raises(UserError, match=r"train.launch.rendezvous is 'first', expected HOST:PORT"):
        Launch(strategy="ddp", processes=1, nodes=2, rendezvous="first")
