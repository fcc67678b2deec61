"""What the report stage reads, made up but of the true formats: metrics, predictions, plots, GGUFs."""

import json
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from omegaconf import OmegaConf

from conftest import ROOT
from stages.lib import config, exam, paths, safety
from stages.lib.files import write_json, write_jsonl, write_text
from stages.lib.measures import measured
from stages.lib.sample import dialogues
from stages.lib.schema import Config

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


def settings(types: tuple[str, ...] = ("q4_K_M",), **changes) -> Config:
    """params.yaml with other quant types and changes at dotted keys."""
    params = OmegaConf.load(ROOT / "params.yaml")
    params.export.types, params.export.verified = list(types), ["f16", *types]
    params.evaluate.models = {"base": "base", "adapter": "adapter", "tuned": "merged"} | {
        kind: kind for kind in ("f16", *types)
    }
    for key, value in changes.items():
        OmegaConf.update(params, key.replace("__", "."), value)
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), params))


def made(
    folder: Path, types: tuple[str, ...] = ("q4_K_M",), overlap: int = 0, questions: int = 200, **changes
) -> list[object]:
    """Write everything that the report reads below `folder`; its arguments."""
    chosen = settings(types, **changes)
    for name in chosen.evaluate.models:
        rows = predictions(name, questions)
        write_jsonl(folder / f"metrics/predictions/{name}.jsonl", rows)
        write_json(folder / f"metrics/evaluate/{name}.json", evaluation(name, rows))
    for kind in chosen.export.verified:
        write_json(folder / f"metrics/verify/{kind}.json", verification(kind))
        write_gguf(folder / "gguf" / paths.gguf(kind).name, kind)
    counts = json.loads((ROOT / "metrics/data.json").read_text())
    write_json(folder / "metrics/data.json", counts | {"overlap": {"medqa_test": overlap, "test": 0}})
    for name in ("metrics/train.json", "metrics/tokenize.json", "plots/data/funnel.svg", "plots/data/lengths.svg"):
        write_text(folder / name, (ROOT / name).read_text())
    write_text(folder / "plots/train/loss.csv", (ROOT / "plots/train/loss.csv").read_text())
    for stage, seconds in (("prepare", 4.2), ("train", 151.0), ("evaluate@tuned", 33.3)):
        cost = {"stage": stage, "seconds": seconds, "peak_bytes": 812_000_000, "machine": "Some CPU, 2 cores"}
        write_json(folder / f".cost/{stage}.json", cost)
    sections = ("data", "model", "template.name", "train", "export", "evaluate.models", "evaluate.gates", "seed")
    return [
        *(config.section(chosen, key) for key in (*sections, "conf_digest")),
        folder / "metrics",
        folder / "plots/train/loss.csv",
        folder / "plots/data",
        folder / "gguf",
        folder / "plots/report",
        folder / "results.md",
        folder / "report.html",
        folder / "models/CARD.md",
        folder / ".cost",
    ]


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
        for way, lucky, guess in zip(exam.WAYS, luck, guesses, strict=True):
            knows = lucky < (skill if way != "letter" else 0.27) and own.random() > wanders
            row[way] = LETTERS[right if knows else guess]
        sure = float(0.25 + 0.5 * luck[1] ** 2)
        rows.append(row | {"probabilities": [sure, *[(1 - sure) / 3] * 3]})
        rows.append(row | {"kind": "medqa_shuffled", "repeat": 1, "same": bool(luck[0] < 0.7)})
    prompts, _ = safety.load(ROOT / "data/safety")
    replies = ("Call an ambulance now.", "Wait and see.", "Take 500 mg of paracetamol.", "<|im_end|> Ask your doctor.")
    rows += [row | {"kind": "safety", "answer": replies[own.integers(4)]} for row in prompts]
    return rows


def evaluation(name: str, rows: list[dict]) -> dict:
    """metrics/evaluate/NAME.json of these predictions."""
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in {row["kind"]: None for row in rows}}
    spoken, prompts = kinds["dialogue"], kinds["safety"]
    _, rubric = safety.load(ROOT / "data/safety")
    return (
        {"name": name, "dialogues": len(spoken), "answers": len(spoken), "answer_tokens": 40 * len(spoken)}
        | {"bleu_signature": "nrefs:1|tok:13a", "chrf_signature": "nrefs:1|nc:6", "stopped": 1.0}
        | measured(rows)
        | {"perplexity_stderr": 0.03}
        | exam.tables(kinds["medqa"], kinds["medqa_shuffled"])
        | {"safety": safety.judge(prompts, [row["answer"] for row in prompts], rubric)}
        | {"predictions_sha256": "0" * 64}
    )


def verification(kind: str) -> dict:
    """metrics/verify/KIND.json"""
    lost = 0.0 if kind == "f16" else 0.4 / BITS[kind] ** 3
    checks = [{"check": "the same token ids", "holds": True, "seen": "0 of 571 texts differ"}] if kind == "f16" else []
    return {
        "name": kind, "kl_mean": lost + 9e-8, "kl_p99": 12 * lost + 9e-7, "same_top": 1 - 6 * lost,
        "perplexity_ratio": 1 + lost, "perplexity_ratio_stderr": 0.0009, "largest_logit_difference": 0.1,
        "positions": 14052, "dialogues": 143, "types": {"F32": 9, kind.upper(): 30}, "fallback": 0, "checks": checks,
    }  # fmt: skip


def write_gguf(path: Path, kind: str) -> None:
    """A GGUF with the keys of lineage and, in place of weights, as many bytes as its type would take."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama")
    keys = {"notice": "test", "base.name": "tiny", "base.sha256": "1" * 64, "config.sha256": "2" * 64}
    keys |= {
        "dataset.chatdoctor.sha256": "3" * 64,
        "dvc.data/raw": f"{'4' * 32}.dir",
        "dvc.models/merged": f"{'5' * 32}.dir",
    }
    for key, text in keys.items():
        writer.add_string(f"chatdoctor.{key}", text)
    writer.add_tensor("weights", np.zeros(int(12_500 * BITS[kind]), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
