"""The train stage, called or as a process of its own that a test can stop and kill."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from accelerate import DistributedType, PartialState
from accelerate.utils import fsdp2_prepare_model
from transformers import TrainingArguments

from stages.lib.model.loading import trained_token_ids
from stages.lib.settings.track import Track
from stages.lib.training import trainer
from stages.lib.training.trainer import Places, finetune
from stages.train import Files
from support.settings import CHATML, ROOT, train_settings

RUN = """
import pickle, sys
from stages import train
from stages.lib.core.errors import UserError
from support import training
train.finetune = training.finetune_sharded_on_cpus
train.require_gpu = lambda launch: None
try:
    train.main(*pickle.load(open(sys.argv[1], "rb")))
except UserError as error:
    sys.exit(str(error))
"""


def arguments(tokenized: Path, base: Path, folder: Path, **changes) -> tuple:
    """What the stage's `main` takes, its outs below the folder."""
    track = Track(mode="disabled", project="test")
    settings = train_settings(**{"num_train_epochs": 2} | changes)
    files = Files(tokenized, base, folder / "adapter", folder / "plots", folder / "train.json")
    return settings, CHATML, track, 5, files


def tuned(base: Path, tokenized: Path, folder: Path, **changes) -> list[dict]:
    """The log history of a training with checkpoints and adapter below the folder."""
    ids = trained_token_ids(base)
    places = Places(tokenized, base, folder / "checkpoints", folder / "adapter")
    return finetune(train_settings(**changes), ids, 5, places)


def finetune_sharded_on_cpus(*given) -> list[dict]:
    """`finetune`, in a process that a test has started; FSDP then shards among processes on CPUs.

    Accelerate 1.15 takes it for GPUs only, and would silently run DDP: it is told that the processes are Intel GPUs.
    """
    made = trainer.arguments

    def arguments(train, folder: Path, seed: int) -> TrainingArguments:
        settings = made(train, folder, seed)
        if train.launch.strategy == "fsdp":
            PartialState(cpu=True).distributed_type = DistributedType.MULTI_XPU
        return settings

    trainer.arguments = arguments
    with patch("accelerate.accelerator.fsdp2_prepare_model", wraps=fsdp2_prepare_model) as shard:
        history = finetune(*given)
    assert shard.called == (given[0].launch.strategy == "fsdp")
    return history


def started(folder: Path, given: tuple, **environment: str) -> subprocess.Popen:
    """The train stage as a process of its own, with its checkpoints below the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "arguments").write_bytes(pickle.dumps(given))
    environment = os.environ | {"DVC_ROOT": str(folder), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"} | environment
    command = [sys.executable, "-c", RUN, str(folder / "arguments")]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Until the condition holds; fails with what the process said where it ends before."""
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
