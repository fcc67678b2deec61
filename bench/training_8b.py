"""One training of bench.train_8b, ours or TRL's: `python -m bench.training_8b SETTINGS OUT`."""

import json
import re
import sys
import tempfile
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import torch
from datasets import load_from_disk

from bench.base_8b import BATCH, dtype, precision, sizes
from bench.flops import product_rate
from bench.machine import device_name, gpu_product_rate, versions
from bench.processes import Answers, asked
from bench.steps import chosen, section
from bench.train import OURS, PEER, Rounds, but, limit, one_run
from stages.lib.training.memory_estimate import estimate

GIB = 1 << 30
VARIANTS = {
    "ours": OURS,
    "ours-liger": but(OURS, train={"use_liger_kernel": True}),
    "trl": PEER,
    "trl-liger": but(PEER, liger=True),
}
MICRO_BATCH = 2  # rows
RECIPE = {"lora": {"r": 64, "lora_alpha": 128, "lora_dropout": 0.05, "target_modules": "all-linear"},
          "gradient_checkpointing": True, "per_device_train_batch_size": MICRO_BATCH,
          "gradient_accumulation_steps": BATCH // MICRO_BATCH}  # fmt: skip
# Dense bfloat16 operations a second, from NVIDIA's data sheets.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12, "L4": 121e12, "4080": 97e12,
         "3090": 71e12, "A10G": 70e12}  # fmt: skip
RECIPE_TOKENS = 3 * 26e6  # of three epochs of HealthCareMagic-100k; a guess until it is tokenised


def measure(settings: dict, answers: Answers) -> None:
    """Train a `variant` by a `method` on rows of a `length`, which lie in `folder` with the base; say what was seen."""
    this, folder = sizes(), Path(settings["folder"])
    rows = folder / str(settings["length"])
    train = train_section(settings["method"], this.tokens[settings["length"]])
    variant = VARIANTS[settings["variant"]]
    run = one_run(variant, train, folder / "base", rows, Rounds(this.steps, 1, this.cap_gib))
    with tempfile.TemporaryDirectory(dir=folder) as work, redirect_stdout(sys.stderr):  # TRL prints each step
        out = Path(work) / "seen.json"
        import_module(f"bench.{variant[0]}").tune(run, out)
        seen = json.loads(out.read_text(encoding="utf-8"))
    packed = load_from_disk(rows / "packed-ours/train").with_format("numpy")
    seen |= limit(this.config, packed, [seen], train["lora"]["r"], peak(this.config, train["max_length"]))
    if settings["variant"].startswith("ours"):
        seen["estimate"] = estimate(this.config, chosen(run["train"]), torch.cuda.is_available())["total"]
    if torch.cuda.is_available():
        seen["hours"] = RECIPE_TOKENS / seen["tokens_per_second"] / 3600
    about = {"tokens": train["max_length"], "precision": train["precision"], "cap_gib": this.cap_gib}
    about["versions"] = versions("trl", "liger-kernel") if settings["variant"] != "ours" else {}
    answers.add(line(seen | about), **seen, **about)
    answers.add(f"losses {', '.join(f'{loss:.4f}' for loss in seen['losses'])}")


def train_section(method: str, tokens: int) -> dict:
    """The `train` section of the recipe by that method, for rows of so many tokens."""
    settings = section(method, max_length=tokens, attention="documents", precision=precision()) | RECIPE
    settings["optim"] = settings["optim"].removeprefix("paged_")  # else the peak depends on what else is on the card
    return settings


def peak(config: dict, tokens: int) -> float:
    """Dense bfloat16 operations a second of this GPU, measured where its data sheet is not known.

    On a CPU those of products as large as a micro-batch's in a layer, measured.
    """
    if not torch.cuda.is_available():
        return product_rate(MICRO_BATCH * tokens, config["hidden_size"], config["intermediate_size"], dtype())
    words = re.findall(r"\w+", device_name())
    return next((rate for card, rate in PEAKS.items() if card in words), 0) or gpu_product_rate()


def line(seen: dict) -> str:
    """What a training's clock saw, in a line."""
    capped = seen["cap_gib"] > 0
    kinds = {"peak": "allocated" if capped else "resident", "reserved": "reserved", "estimate": "estimated"}
    memory = ", ".join(f"{seen[key] / GIB:.2f} {said}" for key, said in kinds.items() if key in seen)
    parts = [
        f"{MICRO_BATCH} × {seen['tokens']} tokens, {seen['precision']}: {seen['tokens_per_second']:,.0f} tokens/s",
        f"step {seen['step_seconds']:.2f} s",
        f"GiB at most {memory}" + (f" of {seen['cap_gib']}" if capped else ""),
        f"MFU {seen['share']:.1%}",
        *([f"the recipe's three epochs {seen['hours']:.1f} h"] if "hours" in seen else []),
        *(f"{name} {number}" for name, number in seen["versions"].items()),
    ]
    return ", ".join(parts)


if __name__ == "__main__":
    measure(*asked())
