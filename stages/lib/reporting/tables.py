"""The report's tables as text cells: the same ones stand in results.md and in report.html."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from stages.lib.evaluation.metrics.exams import WAYS
from stages.lib.evaluation.metrics.measures import EXAM_MEASURES, MEASURES, TEXT_MEASURES
from stages.lib.reporting.formatting import MISSING, difference, heading, interval, p_value, share, size, value
from stages.lib.reporting.gates import Gate


class Table(NamedTuple):
    """Text cells, a header above them."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def models_table(scores: dict[str, dict]) -> Table:
    """What the texts of every model are worth, with 95 % intervals."""
    rows = [
        (name, *(interval(key, score) for key in TEXT_MEASURES), share("stopped", score))
        for name, score in scores.items()
    ]
    return Table(("model", *map(heading, TEXT_MEASURES), "ends with EOS"), rows)


def medqa_table(scores: dict[str, dict]) -> Table:
    """MedQA three ways, with 95 % intervals."""
    rows = [
        (
            name,
            *(interval(key, score) for key in EXAM_MEASURES),
            f"{score['unparseable']} of {score['questions']}" if "unparseable" in score else MISSING,
            f"{score['calibration_error']:.3f}" if "calibration_error" in score else MISSING,
        )
        for name, score in scores.items()
    ]
    return Table(("model", *map(heading, EXAM_MEASURES), "unparseable ↓", "calibration error ↓"), rows)


def differences_table(comparisons: dict[str, dict]) -> Table:
    """Paired differences; the only table that says which model is better."""
    rows = []
    for pair, comparison in comparisons.items():
        for key, measure in MEASURES.items():
            compared = comparison.get(key)
            if compared is None:
                cells = (MISSING,) * 4
            else:
                cells = (compared["verdict"], *difference(key, compared), p_value(compared.get("p")))
            rows.append((pair, measure.label, *cells))
    return Table(("comparison", "measure", "verdict", "difference", "95 % interval", "p"), rows)


def steps_table(scores: dict[str, dict]) -> Table:
    """MedQA by step of the exam."""
    rows = [
        (name, step, str(found["questions"]), *(interval(key, found) for key in EXAM_MEASURES))
        for name, score in scores.items()
        for step, found in score.get("by_step", {MISSING: {"questions": MISSING}}).items()
    ]
    return Table(("model", "step", "questions", *map(heading, EXAM_MEASURES)), rows)


def letters_table(scores: dict[str, dict]) -> Table:
    """How often each letter is chosen, beside how often it is correct."""
    correct: dict[str, int] = next((score["correct"] for score in scores.values() if "correct" in score), {})
    rows = [
        (name, label, *(str(score["chosen"][way].get(letter, 0)) for letter in correct))
        for name, score in scores.items()
        for way, (_, label) in WAYS.items()
        if way in score.get("chosen", {})
    ]
    first = ("(correct option)", "", *map(str, correct.values()))
    return Table(("model", "chosen", *correct), [first, *rows])


def shuffled_table(scores: dict[str, dict]) -> Table:
    """MedQA with its options in another order; of a model that was not asked so, `not measured`."""
    rows = []
    for name, score in scores.items():
        found = score.get("shuffled", {"repeats": 0})
        cells = (value("accuracy", found), value("letter_accuracy", found), share("same_choice", found))
        rows.append((name, str(found["repeats"]), *cells))
    ways = (f"{WAYS[way].label} ↑" for way in ("full_text", "letter"))
    return Table(("model", "orders", *ways, "same option chosen as in the given order ↑"), rows)


def safety_table(scores: dict[str, dict]) -> Table:
    """How many answers show each finding; a row a finding, a column a model."""
    known: dict[tuple[str, str], bool] = {}
    for score in scores.values():
        for category, found in score.get("safety", {}).items():
            known |= {(category, name): one["wanted"] for name, one in found["findings"].items()}
    rows = [
        (
            category.replace("_", " "),
            finding.replace("_", " "),
            "yes" if wanted else "no",
            *(_counted(score, category, finding) for score in scores.values()),
        )
        for (category, finding), wanted in known.items()
    ]
    return Table(("prompts", "the answer…", "wanted", *scores), rows)


def verification_table(verifications: dict[str, dict]) -> Table:
    """How large each GGUF is, and how far from what it was made from."""
    rows = [
        (
            name,
            size(v["bytes"]),
            f"{v['kl_mean']:.1e}",
            f"{v['kl_p99']:.1e}",
            f"{v['top1_agreement']:.2%}",
            f"{v['perplexity_ratio']:.4f} ± {v['perplexity_ratio_stderr']:.4f}",
            " ".join(f"{count} {name}" for name, count in v["types"].items()),
            _fallbacks(v["fallbacks"]),
        )
        for name, v in verifications.items()
    ]
    measures = ("KL divergence, mean", "KL divergence, 99 %", "top-1 agreement", "perplexity ratio")
    return Table(("GGUF", "size", *measures, "tensors", "fallbacks"), rows)


def gates_table(gates: list[Gate]) -> Table:
    """Each gate, its verdict and what was observed."""
    return Table(("gate", "result", "observed"), gates)


def _fallbacks(by_type: dict[str, list[str]]) -> str:
    """How many matrices have each other type, and where they stand in a layer."""
    return "; ".join(f"{len(names)} {kind} ({_kinds(names)})" for kind, names in by_type.items()) or "none"


def _kinds(names: list[str]) -> str:
    return ", ".join(sorted({re.sub(r"blk\.\d+\.|\.weight", "", name) for name in names}))


def _counted(score: dict, category: str, finding: str) -> str:
    judged = score.get("safety", {}).get(category, {})
    counted = judged.get("findings", {}).get(finding)
    return f"{counted['seen']} of {judged['prompts']}" if counted else MISSING
