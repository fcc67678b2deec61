"""Training on a CPU beside TRL's SFTTrainer: `python -m bench.train` writes bench/train.json and bench/train.svg.

Same weights, tokens, labels, adapter, optimiser, learning rates and effective batch in every variant, each run a
process of its own, rounds interleaved. Three models: SmolLM2, which is the default base, the tiny one of
experiment=smoke, and one cut out of Llama-3-8B's shapes. Needs data/tokenized and models/base (`dvc repro tokenize`).
"""

import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bench.flops import of_training, product_rate
from bench.processes import run, trl, why
from bench.steps import section
from stages import tokenize
from stages.lib.base.scratch import from_scratch
from stages.lib.base.template import install_template
from stages.lib.core import paths
from stages.lib.core.files import read_json, write_json
from stages.lib.core.resources import cpu_flags, processor
from stages.lib.model.chat import IGNORED
from stages.lib.settings.model import Scratch
from stages.lib.settings.template import Template

TRL = trl(torch.cuda.is_available())
RESULT, PICTURE = Path(__file__).with_suffix(".json"), Path(__file__).with_suffix(".svg")
ROUNDS, STEPS, SEED = 3, 40, 1
SMALL_STEPS = 12
TINY = {"max_length": 384, "per_device_train_batch_size": 4, "learning_rate": 2e-3,
        "lora": {"r": 32, "lora_alpha": 64, "lora_dropout": 0.0, "target_modules": "all-linear"}}  # fmt: skip
CUT = {"hidden_size": 512, "intermediate_size": 1792, "num_hidden_layers": 2, "num_attention_heads": 8,
       "num_key_value_heads": 2, "vocab_size": 128_256, "tie_word_embeddings": False}  # fmt: skip
CUT_ROWS = 512  # tokens
CUT_STEPS = 6
LONG_ROWS = 2048

# module, how rows are laid out, what the module is told besides, changes of the settings
OURS = ("train_ours", "packed", {"plain_loss": False, "dense_mask": False}, {})
PEER = ("peer_trl", "packed", {"attention": "sdpa", "liger": False, "by_length": False}, {})


def but(variant: tuple, rows: str = "packed", train: dict | None = None, **told) -> tuple:
    """A variant with changes."""
    module, _, before, changes = variant
    return module, rows, before | told, changes | (train or {})


RATES = {
    "ours": OURS,
    "TRL, packed": PEER,
    "TRL, packed, a row at a time": but(PEER, "one"),
    "TRL, padded": but(PEER, "padded"),
    "TRL, padded, like lengths together": but(PEER, "padded", by_length=True),
    "ours, dense mask": but(OURS, dense_mask=True),
    "ours, fp32": but(OURS, train={"precision": "fp32"}),
}
VOCABULARY = {
    "ours": OURS,
    "ours, logits whole": but(OURS, plain_loss=True),
    "TRL, packed": PEER,
    "ours, fp32": but(OURS, train={"precision": "fp32"}),
}


SMALL = {name: RATES[name] for name in ("ours", "TRL, packed", "TRL, padded", "TRL, padded, like lengths together")}
LONG = {name: RATES[name] for name in ("ours", "ours, dense mask")}


def main() -> None:
    """Measure on all three; write, draw and print the result."""
    default = section("lora", precision="bf16", attention="documents")
    settings = default | TINY
    wide = settings | {"max_length": CUT_ROWS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        default_rows = load_from_disk(paths.TOKENIZED / "train").with_format("numpy")
        small_batch = default["per_device_train_batch_size"]
        small_rows = default_rows.shuffle(seed=SEED).select(range(small_batch * SMALL_STEPS))
        lay_out(small_rows, folder / "small")
        rows = make_tiny(folder / "tiny-base", folder / "tiny-tokenized").select(range(4 * STEPS))
        lay_out(rows, folder / "tiny")
        wide_rows = random_rows(4 * CUT_STEPS, CUT_ROWS, CUT["vocab_size"])
        lay_out(wide_rows, folder / "cut")
        llama(CUT, folder / "base")
        small, tiny = (read_json(base / "config.json") for base in (paths.BASE, folder / "tiny-base"))
        lay_out(random_rows(4 * CUT_STEPS, LONG_ROWS, tiny["vocab_size"]), folder / "long")
        result = {
            "SmolLM2": compare(SMALL, default, paths.BASE, folder / "small", Rounds(SMALL_STEPS)),
            "tiny": compare(RATES, settings, folder / "tiny-base", folder / "tiny", Rounds(STEPS)),
            "tiny, rows of 2,048": compare(
                LONG, settings | {"max_length": LONG_ROWS}, folder / "tiny-base", folder / "long", Rounds(CUT_STEPS)
            ),
            "cut": compare(VOCABULARY, wide, folder / "base", folder / "cut", Rounds(CUT_STEPS, rounds=1)),
        }
    r = settings["lora"]["r"]
    limits = {
        "SmolLM2": limit(small, small_rows, result["SmolLM2"]["ours"], default["lora"]["r"], batch=small_batch),
        "tiny": limit(tiny, rows, result["tiny"]["ours"], r),
        "cut": limit(CUT, wide_rows, result["cut"]["ours"], r),
    }
    machine = {"processor": processor(), "cores": torch.get_num_threads(), "avx512_bf16": "avx512_bf16" in cpu_flags()}
    machine |= {name: version(name) for name in ("torch", "transformers", "peft")} | {"trl": TRL[0]}
    write_json(RESULT, {"machine": machine, "limits": limits} | result)
    draw({name: result["tiny"][name][0]["losses"] for name in ("ours", "TRL, packed", "TRL, padded")})
    for name, seen in result.items():
        print(f"{name}\n{table(seen)}\n")
    print(json.dumps(limits, indent=1))


def make_tiny(base: Path, tokenized: Path) -> Dataset:
    """The model of conf/model/tiny.yaml, and the default run's dialogues in packed sequences for it."""
    from_scratch(Scratch(**plain("conf/model/tiny.yaml")["scratch"]), paths.PREPARED / "train.jsonl", base, SEED)
    install_template(base, Template(**plain("conf/template/chatml.yaml")))
    tokenize.main(TINY["max_length"], "drop", paths.PREPARED, base, tokenized, tokenized.with_suffix(".json"))
    return load_from_disk(tokenized / "train").with_format("numpy")


def plain(path: str) -> dict[str, Any]:
    """A YAML file of conf/ as plain values."""
    values: Any = OmegaConf.to_container(OmegaConf.load(path))
    return values


def lay_out(rows: Dataset, folder: Path) -> None:
    """Write packed rows for ours (`packed-ours`), for TRL (`packed`), and their documents one by one (`padded`)."""
    rows.save_to_disk(folder / "packed-ours/train")
    rows.select([0]).save_to_disk(folder / "packed-ours/validation")  # it is there, but never looked at
    Dataset.from_list([packed for packed, _ in as_trl_has_it(rows)]).save_to_disk(folder / "packed")
    documents = [document for _, documents in as_trl_has_it(rows) for document in documents]
    Dataset.from_list(documents).save_to_disk(folder / "padded")


class Rounds(NamedTuple):
    """How often each variant runs and for how many steps; `cap_gib`, where not 0, is all it may take of a GPU."""

    steps: int
    rounds: int = ROUNDS
    cap_gib: float = 0


def compare(variants: dict, settings: dict, base: Path, folder: Path, rounds: Rounds) -> dict[str, list]:
    """What each variant's clock saw in each round, the variants in turn, on the rows laid out in the folder."""
    seen = {name: [] for name in variants}
    for number in range(rounds.rounds):
        for name, variant in variants.items():
            asked = one_run(variant, settings, base, folder, rounds)
            started = time.perf_counter()
            seen[name].append(run(variant[0], asked, folder / "run", *TRL))
            figures = {key: value for key, value in seen[name][-1].items() if key != "losses"}
            logging.info("round %d, %s, %.0f s: %s", number + 1, name, time.perf_counter() - started, figures)
    return seen


def one_run(variant: tuple, settings: dict, base: Path, folder: Path, rounds: Rounds) -> dict:
    """What the module of a variant is asked, on the rows laid out in the folder."""
    _, laid, told, changes = variant
    documents, rows = len(load_from_disk(folder / "padded")), len(load_from_disk(folder / "packed"))
    batch, accumulation = settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]
    batches = {"packed": (batch, accumulation), "one": (1, batch * accumulation)}
    batches["padded"] = (round(batch * documents / rows), accumulation)
    once = {"num_train_epochs": 1, "eval_steps": 10**6, "save_steps": 10**6, "load_best_model_at_end": False}
    size = dict(zip(("per_device_train_batch_size", "gradient_accumulation_steps"), batches[laid], strict=True))
    packed = laid != "padded"
    asked = told | {"base": str(base), "tokenized": str(folder / "packed-ours"), "packed": packed}
    asked |= {"data": str(folder / ("packed" if packed else "padded"))}
    asked |= {"train": settings | once | size | changes, "seed": SEED}
    return asked | {"steps": rounds.steps, "cap_gib": rounds.cap_gib}


def as_trl_has_it(rows: Dataset) -> Iterator[tuple[dict, list[dict]]]:
    """Each packed row without its padding, with the lengths of its documents; and these documents apart."""
    for row in rows:
        end = int(row["tokens"])
        starts = [*np.flatnonzero(row["position_ids"][:end] == 0).tolist(), end]
        whole = {name: row[name][:end].tolist() for name in ("input_ids", "labels")}
        apart = [{name: column[i:j] for name, column in whole.items()} for i, j in pairwise(starts)]
        yield whole | {"seq_lengths": np.diff(starts).tolist()}, apart


def random_rows(rows: int, length: int, vocab_size: int) -> Dataset:
    """Rows full of documents of 128 tokens, as `tokenize` writes them; all tokens but each first are labels."""
    draw = np.random.default_rng(SEED)
    ids = draw.integers(0, vocab_size - 1000, (rows, length), dtype=np.int32)
    positions = np.tile(np.arange(length, dtype=np.int32) % 128, (rows, 1))
    columns = {"input_ids": ids, "labels": np.where(positions == 0, IGNORED, ids), "position_ids": positions}
    columns |= {"tokens": np.full(rows, length), "record_ids": [[str(i)] for i in range(rows)]}
    return Dataset.from_dict(columns).with_format("numpy")


def llama(config: dict, folder: Path) -> None:
    """Write a model of random weights in bfloat16, with a tokenizer of which only the padding token is used."""
    torch.manual_seed(SEED)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM._from_config(LlamaConfig(**config), dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="2GB")  # a shard at a time goes through the machine's memory
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    vocabulary = WordLevel({token: i for i, token in enumerate(special.values())}, unk_token=special["unk_token"])
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(vocabulary), **special).save_pretrained(folder)


def limit(config: dict, rows: Dataset, seen: list[dict], r: int, peak: float = 0, batch: int = 4) -> dict:
    """Operations a token, the operations a second the machine is capable of, and the share of them that was reached.

    Where no `peak` is known, it is measured: products of bfloat16 matrices as large as those of a batch in a layer.
    """
    columns = rows[:]
    labelled, context = float((columns["labels"] != IGNORED).mean()), float(columns["position_ids"].mean()) + 1
    needed = of_training(config, r, labelled, context)
    rate = median(one["tokens_per_second"] for one in seen)
    peak = peak or product_rate(
        batch * columns["labels"].shape[1], config["hidden_size"], config["intermediate_size"], torch.bfloat16
    )
    return {"flops_per_token": needed, "peak_flops_per_second": peak, "share": rate * needed / peak}


def draw(losses: dict[str, list[float]]) -> None:
    """The loss of each step, as a picture."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for (name, values), style in zip(losses.items(), ("-", "--", ":"), strict=True):
        axes.plot(range(1, len(values) + 1), values, style, label=name)
    axes.set(xlabel="optimiser step", ylabel="training loss")
    axes.legend()
    figure.savefig(PICTURE, metadata={"Date": None})


def table(seen: dict[str, list]) -> str:
    """A row a variant, in Markdown: medians, and the median of the rounds' ratios to ours unless that failed."""
    lines = ["| | tokens/s | ours to it | peak resident memory | to ours | last loss |", "|---|---|---|---|---|---|"]
    ours = seen["ours"]
    for name, rounds in seen.items():
        if failed := next(filter(None, map(why, rounds)), ""):
            lines.append(f"| {name} | failed: {failed} | – | – | – | – |")
            continue
        speed = memory = "–"
        if not any(map(why, ours)):
            pairs = list(zip(ours, rounds, strict=True))
            speed = f"{median(our['tokens_per_second'] / one['tokens_per_second'] for our, one in pairs):.2f}"
            memory = f"{median(one['peak'] / our['peak'] for our, one in pairs):.2f}"
        tokens, peak = (median(one[key] for one in rounds) for key in ("tokens_per_second", "peak"))
        loss = rounds[0]["losses"][-1]
        lines.append(f"| {name} | {tokens:,.0f} | {speed} | {peak / 1e6:,.0f} MB | {memory} | {loss:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    main()
