"""A GPU that torch cannot use is said; a hidden one is left alone."""

import pytest
import torch

from stages.lib.core.errors import UserError
from stages.lib.model import device as module
from stages.lib.model.device import device, require_free


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine that torch sees no GPU on; what is written to the folder is in its PATH."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(module, "GPU_FILES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def say(folder, script: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)


def test_without_a_gpu_the_cpu_is_taken(machine):
    assert device() == "cpu"
    say(machine, "exit 9")  # the tool without a driver
    assert device() == "cpu"


def test_a_driver_that_is_too_old_is_said_with_both_versions(machine, monkeypatch):
    say(machine, "echo 535.104.05")
    told = (
        r"driver 535\.104\.05.*is built for CUDA 13\.0, which needs driver 580 or newer; update.*CUDA_VISIBLE_DEVICES="
    )
    with pytest.raises(UserError, match=told):
        device()
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match="is built without CUDA; install"):
        device()


def test_a_device_file_is_enough_and_hiding_it_too(machine, monkeypatch):
    (machine / "nvidia0").touch()
    with pytest.raises(UserError, match="driver unknown"):
        device()
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert device() == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UserError):
        device()


def test_what_does_not_fit_is_said_with_its_fix():
    require_free("cpu", 1e6, "a little", "never said")
    with pytest.raises(UserError, match=r"^much takes about 1000000\.00 GB of memory, .* GB are free; take less$"):
        require_free("cpu", 1e15, "much", "take less")
