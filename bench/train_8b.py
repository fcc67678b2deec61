"""LoRA of Llama-3-8B's shapes on one GPU that has 24 GiB, beside TRL's SFTTrainer: `python -m bench.train_8b`.

Random weights, micro-batches of 2 packed rows of 512 and of 2,048 tokens. The 24 GiB are a hard cap on what the process
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

from bench.memory import LLAMA_3_8B
from bench.steps import section
from bench.train import CUT, OURS, PEER, but, compare, lay_out, limit, llama, random_rows, table
from stages.lib.files import write_json

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
    name = torch.cuda.get_device_name() if gpu else "CPU"
    peak = next((rate for card, rate in PEAKS.items() if card in name), 0)
    flash = "flash_attention_2" if gpu and find_spec("flash_attn") else "documents"
    peers = {"TRL, packed": PEER}
    if gpu:
        peers |= {
            "TRL, packed, Liger": but(PEER, liger=True),
            "TRL, packed, flex": but(PEER, attention="flex_attention"),
        }
    if flash != "documents":
        peers["TRL, packed, Liger, FlashAttention"] = but(PEER, liger=True, attention=flash)
    result = {}
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
                case = f"{method}, 2 rows of {length}"
                logging.info("%s on %s", case, name)
                seen = compare(
                    {"ours": OURS} | peers, settings, folder / "base", folder / str(length), steps, 1, CAP_GIB
                )
                result[case] = seen
                print(f"{case}, {name}\n{table(seen)}")
                if "failed" not in seen["ours"][0]:
                    reached = limit(config, rows, seen["ours"], 64, peak)
                    print(json.dumps(reached | {"peak_gib": seen["ours"][0]["peak"] / GIB}), flush=True)
                    result[case] |= {"limit": reached}
                    if gpu:
                        hours = RECIPE_TOKENS / seen["ours"][0]["tokens_per_second"] / 3600
                        print(f"the recipe's three epochs: about {hours:.1f} hours", flush=True)
                write_json(RESULT, {"device": name, "cap_gib": CAP_GIB, "cases": result})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    main()
