"""On a GPU a training learns what it learns on a CPU, with Liger's kernels too."""

import json
import subprocess
import sys

import pytest

from support.gpu import SEEING
from support.settings import ROOT
from support.training import tuned

CHANGES = {"learning_rate": 1e-3, "num_train_epochs": 1}
LOSSES = """
import importlib.util, json, sys
from pathlib import Path
import torch
if not torch.cuda.is_available():
    sys.exit("torch sees no GPU")
from support.training import tuned
base, tokenized, folder, changes = *map(Path, sys.argv[1:4]), json.loads(sys.argv[4])
kernels = [False, True] if importlib.util.find_spec("liger_kernel") else [False]
histories = [tuned(base, tokenized, folder / str(liger), **changes, precision="bf16", use_liger_kernel=liger)
             for liger in kernels]
print(json.dumps([[entry["loss"] for entry in history if "loss" in entry] for history in histories]))
"""


def test_a_gpus_losses_are_the_cpus_within_bfloat16(base, tokenized, tmp_path):
    """The CPU's in float32; a GPU's in bfloat16, whose numbers have 8 bits: 1 part in 256."""
    given = [*map(str, (base, tokenized, tmp_path)), json.dumps(CHANGES)]
    environment = SEEING | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", LOSSES, *given], capture_output=True, text=True, env=environment)
    if done.stderr.strip().endswith("torch sees no GPU"):  # torch may warn of a driver before
        pytest.skip("torch sees no GPU")
    assert done.returncode == 0, done.stderr
    expected = [entry["loss"] for entry in tuned(base, tokenized, tmp_path / "cpu", **CHANGES) if "loss" in entry]
    for losses in json.loads(done.stdout.splitlines()[-1]):
        assert losses == pytest.approx(expected, rel=1 / 256)
