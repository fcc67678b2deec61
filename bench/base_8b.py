"""What bench.train_8b trains: `python -m bench.base_8b SETTINGS OUT` writes random weights and rows into a folder."""

import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from bench.memory import LLAMA_3_8B
from bench.processes import Answers, asked
from bench.steps import cap, chosen, section
from bench.train import CUT, lay_out, llama, random_rows
from stages.lib.core.files import replacing
from stages.lib.core.resources import require_disk
from stages.lib.training.hardware import resolved
from stages.lib.training.shapes import parameters

BATCH = 8  # rows of an optimiser step
WINDOW = {"max_position_embeddings": 8192}


class Sizes(NamedTuple):
    """A base's shapes, the tokens of a row by the name of its length, and for how many optimiser steps there are rows.

    `cap_gib` is all that a process may allocate of the GPU.
    """

    config: dict
    tokens: dict[int, int]
    steps: int
    cap_gib: int


ON_GPU = Sizes(LLAMA_3_8B, {2048: 2048, 512: 512}, steps=7, cap_gib=24)
ON_CPU = Sizes(CUT | {"vocab_size": 32_000}, {2048: 128, 512: 64}, steps=6, cap_gib=0)


def sizes() -> Sizes:
    """Those of Llama-3-8B on a GPU; on a CPU so small that the script can be seen to work."""
    return ON_GPU if torch.cuda.is_available() else ON_CPU


@cache
def precision() -> str:
    """`bf16` where it is multiplied in hardware, else `fp32`: without, a product takes hundreds of times as long."""
    return resolved(chosen(section("lora", precision="auto"))).precision


def dtype() -> torch.dtype:
    """The type of the products at that precision."""
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision()]


def write(folder: Path, answers: Answers) -> None:
    """Write the rows of each length, then the base, whole or not at all."""
    this, start = sizes(), time.perf_counter()
    size = 2 * parameters(this.config)
    require_disk(folder, size, "a base of random weights")
    cap(this.cap_gib)
    for name, tokens in this.tokens.items():
        lay_out(random_rows(this.steps * BATCH, tokens, this.config["vocab_size"]), folder / str(name))
    with replacing(folder / "base") as temporary:
        llama(this.config | WINDOW, temporary)
    seconds = time.perf_counter() - start
    answers.add(f"{size / 1e9:.2f} GB of random weights in {folder}: {seconds:.0f} s", bytes=size, seconds=seconds)


if __name__ == "__main__":
    settings, to = asked()
    write(Path(settings["folder"]), to)
