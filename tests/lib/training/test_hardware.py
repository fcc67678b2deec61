"""What the machine decides of a training, and what it cannot do."""

import importlib.util

import pytest
import torch

from stages.lib.core.errors import UserError
from stages.lib.training import hardware
from stages.lib.training.hardware import resolved
from support.settings import train_settings


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that emulates bfloat16, as one older than NVIDIA's Ampere does."""
    monkeypatch.setattr(hardware, "device", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)


def test_emulated_bfloat16_is_not_taken_for_bfloat16(gpu):
    assert resolved(train_settings(precision="auto")).precision == "fp32"
    assert resolved(train_settings(precision="bf16")).precision == "bf16"


def test_ligers_kernels_need_a_gpu_and_their_package(gpu, monkeypatch):
    liger = train_settings(use_liger_kernel=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="use_liger_kernel is true, but it is not installed: `pip install liger-kernel`"
    ):
        resolved(liger)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "liger_kernel")
    assert resolved(liger).use_liger_kernel
    monkeypatch.setattr(hardware, "device", lambda: "cpu")
    with pytest.raises(UserError, match="it needs a GPU, and none was found; or take false"):
        resolved(liger)
