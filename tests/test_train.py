"""Training survives a kill and never resumes on something else."""

import os
import signal
import subprocess
import sys
import time

import pytest

from conftest import CHATML, ROOT, train_settings
from stages import train
from stages.lib import checkpoints
from stages.lib.errors import UserError
from stages.lib.files import sha256
from stages.lib.schema import Track

RUN = """
import pickle, sys
from pathlib import Path
from stages import train
train.main(*pickle.load(open(sys.argv[1], "rb")))
"""


def arguments(tokenized, base, folder):
    track = Track(mode="disabled", project="test")
    settings = train_settings(num_train_epochs=2)
    outs = (folder / "adapter", folder / "loss.csv", folder / "train.json")
    return (settings, CHATML, track, 5, tokenized, base, *outs)


def test_killed_training_resumes_to_the_same_bytes(tokenized, base, tmp_path, monkeypatch):
    import pickle

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "arguments").write_bytes(pickle.dumps(arguments(tokenized, base, tmp_path / name)))

    def start(name):
        environment = os.environ | {"DVC_ROOT": str(tmp_path / name), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        command = [sys.executable, "-c", RUN, str(tmp_path / name / "arguments")]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    killed = start("killed")
    while not list((tmp_path / "killed").glob(".checkpoints/*/checkpoint-4/trainer_state.json")):
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed/adapter").exists()
    (partial,) = tmp_path.glob("killed/.checkpoints/*/checkpoint-4")
    (partial.parent / "checkpoint-6").mkdir(exist_ok=True)  # as if killed in the middle of the next save
    (partial.parent / "checkpoint-6/trainer_state.json").unlink(missing_ok=True)

    for name in ("killed", "whole"):
        process = start(name)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    for file in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "loss.csv", "train.json"):
        assert sha256(tmp_path / "killed" / file) == sha256(tmp_path / "whole" / file), file
    assert not list(tmp_path.glob("*/.checkpoints/*/"))


def test_another_setting_row_or_seed_has_other_checkpoints(tokenized, tmp_path):
    import shutil

    settings = vars(train_settings())
    key = checkpoints.key_of(settings, "chatml", 1, [tokenized])
    assert key == checkpoints.key_of(settings, "chatml", 1, [tokenized])
    data = tmp_path / "tokenized"
    shutil.copytree(tokenized, data)
    assert key == checkpoints.key_of(settings, "chatml", 1, [data])
    with next(data.rglob("*.arrow")).open("ab") as file:
        file.write(b"x")
    others = {
        checkpoints.key_of(settings | {"learning_rate": 0.5}, "chatml", 1, [tokenized]),
        checkpoints.key_of(settings, "llama3", 1, [tokenized]),
        checkpoints.key_of(settings, "chatml", 2, [tokenized]),
        checkpoints.key_of(settings, "chatml", 1, [data]),
    }
    assert len(others) == 4
    assert key not in others


def test_two_trainers_cannot_share_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with checkpoints.locked("key"), pytest.raises(UserError, match="another training run"), checkpoints.locked("key"):
        pass


def test_quantised_training_says_that_it_is_not_there_yet(tokenized, base, tmp_path):
    settings, *rest = arguments(tokenized, base, tmp_path)
    settings.quantization = "8bit"
    with pytest.raises(UserError, match=r"8bit.*not there yet"):
        train.main(settings, *rest)
    assert not (tmp_path / "adapter").exists()
