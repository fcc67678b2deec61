"""What the report stage reads, made up but of the true formats: predictions, metrics, plots."""

import json
import tempfile
from pathlib import Path
from typing import get_type_hints

import numpy as np
from omegaconf import OmegaConf

from stages import score
from stages.lib.core import params, paths
from stages.lib.core.files import write_json, write_jsonl, write_text
from stages.lib.data.safety_prompts import read_prompts
from stages.lib.data.sources.sample import dialogues
from stages.lib.reporting.results import RunSettings
from stages.lib.settings import model_names
from stages.report import SECTIONS, Files
from support.settings import ROOT

LETTERS = ("A", "B", "C", "D")
SKILL = {"base": 0.24, "tuned": 0.42}  # share of questions answered right; a quantised model errs a little more
BITS = {
    "f16": 16,
    "q8_0": 8.5,
    "q6_K": 6.6,
    "q5_K_M": 5.7,
    "q5_K_S": 5.5,
    "q4_K_M": 4.9,
    "q4_K_S": 4.6,
    "q3_K_M": 3.9,
    "q2_K": 3.0,
}


def settings(types: tuple[str, ...] = ("q4_K_M",), **changes) -> RunSettings:
    """What the report tells of params.yaml, with other quant types and changes at dotted keys."""
    chosen = OmegaConf.load(ROOT / "params.yaml")
    chosen.export.types = list(types)
    chosen.export.verified = model_names.verified(list(types))
    chosen.evaluate.models = model_names.evaluated(list(types), list(model_names.EXTRA))
    for key, value in changes.items():
        OmegaConf.update(chosen, key.replace("__", "."), value)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        OmegaConf.save(chosen, path)
        return RunSettings(
            *params.load_all(dict(zip(SECTIONS, get_type_hints(RunSettings).values(), strict=True)), path)
        )


def made(
    folder: Path, types: tuple[str, ...] = ("q4_K_M",), overlap: int = 0, questions: int = 200, **changes
) -> tuple[RunSettings, Files]:
    """Write everything that the report reads below `folder`; its arguments."""
    chosen = settings(types, **changes)
    metrics = folder / "metrics"
    for name in chosen.models:
        rows = predictions(name, questions)
        write_jsonl(paths.predictions(metrics, name), rows)
        write_json(paths.scores(metrics, name), evaluation(name, rows))
    for kind in chosen.export.verified:
        write_json(paths.verification(metrics, kind), verification(kind))
    write_json(metrics / "data.json", data_counts(overlap))
    read = [f"metrics/{name}.json" for name in ("base", "train", "tokenize")]
    for name in (*read, "plots/data/funnel.svg", "plots/data/lengths.svg"):
        write_text(folder / name, (ROOT / name).read_text())
    write_text(folder / "plots/train/loss.csv", (ROOT / "plots/train/loss.csv").read_text())
    written = [folder / name for name in ("plots/report", "results.md", "report.html", "models/CARD.md")]
    return chosen, Files(metrics, folder / "plots/train/loss.csv", folder / "plots/data", ROOT / "dvc.yaml", *written)


def data_counts(overlap: int) -> dict:
    """metrics/data.json, with so many questions in the training text."""
    counts = json.loads((ROOT / "metrics/data.json").read_text())
    counts["splits"]["medqa_test"]["rows"], counts["splits"]["test"]["rows"] = 400, 143
    return counts | {"overlap_words": 13, "overlap": {"medqa_test": overlap, "test": 0}}


def predictions(name: str, questions: int) -> list[dict]:
    """Rows of every kind; every model is asked the same, and a GGUF answers nearly as `tuned` does."""
    shared, own = np.random.default_rng(1), np.random.default_rng(len(name) + 2)
    wanders = 0.3 / BITS[name] if name in BITS else 0.0
    rows, read = [], []
    for i, one in enumerate(dialogues(ROOT / "data/sample", 30, seed=7)):
        loss = shared.normal(0.9, 0.1) + (1.0 if name == "base" else own.normal(0, wanders / 20))
        words = one["output"].split()
        answer = " ".join(words[: len(words) // (3 if name == "base" else 1)])
        about = {"id": f"{i:016x}", "kind": "dialogue", "question": one["input"], "reference": one["output"]}
        rows.append(about | {"answer": answer, "stopped": True})
        read.append({"id": f"{i:016x}", "kind": "likelihood", "nats": float(40 * loss), "tokens": 40, "bytes": 180})
    rows += read
    skill = SKILL["base" if name == "base" else "tuned"]
    for i in range(questions):
        right, luck, guesses = shared.integers(4), shared.random(3), shared.integers(4, size=3)
        row = {"id": f"{i:016x}", "kind": "medqa", "answer_idx": LETTERS[right], "step": ("step1", "step2&3")[i % 2]}
        for way, lucky, guess in zip(("full_text", "letter", "text"), luck, guesses, strict=True):
            knows = lucky < (skill if way != "letter" else 0.27) and own.random() > wanders
            row[way] = LETTERS[right if knows else guess]
        sure = float(0.25 + 0.5 * luck[1] ** 2)
        rows.append(row | {"probabilities": [sure, *[(1 - sure) / 3] * 3]})
        rows.append(row | {"kind": "medqa_shuffled", "repeat": 1, "same": bool(luck[0] < 0.7)})
    prompts = read_prompts(ROOT / "data/safety/prompts.jsonl")
    replies = ("Call an ambulance now.", "Wait and see.", "Take 500 mg of paracetamol.", "<|im_end|> Ask your doctor.")
    rows += [row | {"kind": "safety", "answer": replies[own.integers(4)]} for row in prompts]
    return rows


def evaluation(name: str, rows: list[dict]) -> dict:
    """The scores of these predictions, as the score stage writes them."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder)
        write_jsonl(paths.predictions(metrics, name), rows)
        score.main(ROOT / "data/safety", metrics, name)
        return json.loads(paths.scores(metrics, name).read_text())


def verification(kind: str) -> dict:
    """What the verify stage writes of a GGUF."""
    lost = 0.0 if kind == "f16" else 0.4 / BITS[kind] ** 3
    check = {"check": "the same token ids", "holds": True, "observed": "0 of 571 texts differ", "limit": "0"}
    lineage = {"notice": "test", "base.name": "tiny", "base.sha256": "1" * 64, "config.sha256": "2" * 64}
    lineage |= {"dataset.chatdoctor.sha256": "3" * 64, "dvc.data/raw": f"{'4' * 32}.dir"}
    return {
        "name": kind,
        "bytes": int(1_000_000 * BITS[kind]),
        "sha256": f"{len(kind)}" * 64,
        "lineage": {f"chatdoctor.{key}": text for key, text in lineage.items()},
        "kl_mean": lost + 9e-8,
        "kl_p99": 12 * lost + 9e-7,
        "top1_agreement": 1 - 6 * lost,
        "perplexity_ratio": 1 + lost,
        "perplexity_ratio_stderr": 0.0009,
        "logit_difference": 0.001,
        "measured_with": "llama.cpp 1, CPU build",
        "positions": 14052,
        "dialogues": 143,
        "types": {"F32": 9, kind.upper(): 30},
        "fallbacks": {} if kind == "f16" else {"Q5_0": ["blk.0.attn_q.weight", "blk.1.attn_q.weight"]},
        "checks": [check] if kind == "f16" else [],
    }
