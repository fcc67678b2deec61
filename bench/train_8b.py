"""LoRA of Llama-3-8B's shapes on one GPU that has 24 GiB, beside TRL's SFTTrainer: `python -m bench.train_8b`.

Random weights, micro-batches of 2 packed sequences of 512 and of 2,048 tokens. The 24 GiB are a hard cap on what it
may allocate. Without a GPU the same script runs with a model that is cut down, to see that it works; those figures
say nothing about 8B.
"""

import json
import logging
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from datasets import Dataset

from bench.memory import LLAMA_3_8B
from bench.steps import section
from bench.train import CUT, OURS, PEER, Rounds, but, compare, lay_out, limit, llama, random_rows, table
from stages.lib.core.files import write_json

RESULT = Path(__file__).with_suffix(".json")
GIB = 1 << 30
CAP_GIB = 24
RECIPE = {"lora": {"r": 64, "lora_alpha": 128, "lora_dropout": 0.05, "target_modules": "all-linear"},
          "precision": "bf16", "gradient_checkpointing": True, "per_device_train_batch_size": 2,
          "gradient_accumulation_steps": 4}  # fmt: skip
METHODS = ("lora", "lora-8bit", "qlora")
# Dense bfloat16 operations a second, from NVIDIA's data sheets.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "4090": 165e12}
# HealthCareMagic-100k, 144 MB of JSON at about 4.4 bytes a token, three times: a guess until it is tokenised.
RECIPE_TOKENS = 3 * 144e6 / 4.4


def main() -> None:
    """Measure each method at each length, print tables, write the result."""
    gpu = torch.cuda.is_available()
    config, lengths, steps = (LLAMA_3_8B, (512, 2048), 8) if gpu else (CUT, (64, 256), 6)
    device = torch.cuda.get_device_name() if gpu else "CPU"
    flash = "flash_attention_2" if gpu and find_spec("flash_attn") else "documents"
    cases: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        llama(config | {"max_position_embeddings": 8192}, folder / "base")
        for length in lengths:
            rows = random_rows(steps * 8, length, config["vocab_size"])
            lay_out(rows, folder / str(length))
            for method in METHODS:
                settings = section(method, max_length=length, attention=flash) | RECIPE
                if not gpu:
                    settings["optim"] = settings["optim"].removeprefix("paged_")
                case = f"{method}, 2 packed sequences of {length}"
                logging.info("%s on %s", case, device)
                rounds = Rounds(steps, 1, CAP_GIB)
                variants = {"ours": OURS} | peers(gpu, flash)
                seen = compare(variants, settings, folder / "base", folder / str(length), rounds)
                print(f"{case}, {device}\n{table(seen)}")
                cases[case] = seen | reached(config, rows, seen["ours"], device)
                write_json(RESULT, {"device": device, "cap_gib": CAP_GIB, "cases": cases})


def peers(gpu: bool, flash: str) -> dict[str, tuple]:
    """TRL as it comes, and with what a GPU offers it."""
    variants = {"TRL, packed": PEER}
    if gpu:
        variants["TRL, packed, Liger"] = but(PEER, liger=True)
        variants["TRL, packed, flex"] = but(PEER, attention="flex_attention")
    if flash != "documents":
        variants["TRL, packed, Liger, FlashAttention"] = but(PEER, liger=True, attention=flash)
    return variants


def reached(config: dict, rows: Dataset, ours: list[dict], device: str) -> dict[str, dict]:
    """How near ours comes to the device's limit, printed too; nothing where it failed."""
    if "failed" in ours[0]:
        return {}
    peak = next((rate for card, rate in PEAKS.items() if card in device), 0)
    found = limit(config, rows, ours, 64, peak)
    print(json.dumps(found | {"peak_gib": ours[0]["peak"] / GIB}), flush=True)
    if device != "CPU":
        hours = RECIPE_TOKENS / ours[0]["tokens_per_second"] / 3600
        print(f"the recipe's three epochs: about {hours:.1f} hours", flush=True)
    return {"limit": found}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    main()
