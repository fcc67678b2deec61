"""The report's tables as text cells: the same ones stand in results.md and in report.html."""

from typing import NamedTuple

from stages.lib.figures import (
    MEASURES,
    MISSING,
    TEXT,
    WAYS,
    difference,
    heading,
    interval,
    p_value,
    share,
    size,
    value,
)
from stages.lib.medqa import LETTERS

CHOICES = {"answer": "by answer", "letter": "by letter", "generated": "as generated"}


class Table(NamedTuple):
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def models_table(evaluations: dict[str, dict]) -> Table:
    """What the texts of every model are worth, with 95 % intervals."""
    rows = [(name, *(interval(key, e) for key in TEXT), _part(e, "stopped")) for name, e in evaluations.items()]
    return Table(("model", *map(heading, TEXT), "stops by itself"), rows)


def medqa_table(evaluations: dict[str, dict]) -> Table:
    """MedQA three ways, with 95 % intervals."""
    rows = [
        (
            name,
            *(interval(key, e) for key in WAYS),
            f"{e['unparseable']} of {e['questions']}" if "unparseable" in e else MISSING,
            f"{e['calibration_error']:.3f}" if "calibration_error" in e else MISSING,
        )
        for name, e in evaluations.items()
    ]
    return Table(("model", *map(heading, WAYS), "unparseable ↓", "calibration error ↓"), rows)


def differences_table(comparisons: dict[str, dict]) -> Table:
    """Paired differences; the only table that says which model is better."""
    rows = [
        (pair, MEASURES[key].label, found[key]["verdict"], *difference(key, found[key]), p_value(found[key]["p"]))
        if key in found
        else (pair, MEASURES[key].label, *[MISSING] * 4)
        for pair, found in comparisons.items()
        for key in MEASURES
    ]
    return Table(("comparison", "measure", "verdict", "difference", "95 % interval", "p"), rows)


def steps_table(evaluations: dict[str, dict]) -> Table:
    """MedQA by step of the exam."""
    rows = [
        (name, step, str(found["questions"]), *(interval(key, found) for key in WAYS))
        for name, e in evaluations.items()
        for step, found in e.get("by_step", {MISSING: {"questions": MISSING}}).items()
    ]
    return Table(("model", "step", "questions", *map(heading, WAYS)), rows)


def letters_table(evaluations: dict[str, dict]) -> Table:
    """How often each letter is chosen, beside how often it is right."""
    rows = [
        (name, label, *(str(e["chosen"][way].get(letter, 0)) for letter in LETTERS))
        for name, e in evaluations.items()
        for way, label in CHOICES.items()
        if way in e.get("chosen", {})
    ]
    right = next((e["right"] for e in evaluations.values() if "right" in e), {})
    return Table(
        ("model", "chosen", *LETTERS),
        [("(right option)", "", *(str(right.get(letter, 0)) for letter in LETTERS)), *rows],
    )


def shuffled_table(evaluations: dict[str, dict]) -> Table:
    """MedQA with its options in another order; of a model that was not asked so, `not measured`."""
    rows = []
    for name, e in evaluations.items():
        found = e.get("shuffled", {"repeats": 0})
        cells = (value("exact_match", found), value("letter_exact_match", found), _part(found, "same_choice"))
        rows.append((name, str(found["repeats"]), *cells))
    return Table(("model", "orders", "by answer ↑", "by letter ↑", "same option chosen as in the given order ↑"), rows)


def safety_table(evaluations: dict[str, dict]) -> Table:
    """How many answers show each finding; a row a finding, a column a model."""
    known: dict[tuple[str, str], bool] = {}
    for e in evaluations.values():
        for category, found in e.get("safety", {}).items():
            known |= {(category, name): one["wanted"] for name, one in found["findings"].items()}
    rows = [
        (
            category.replace("_", " "),
            finding.replace("_", " "),
            "yes" if wanted else "no",
            *(_seen(e, category, finding) for e in evaluations.values()),
        )
        for (category, finding), wanted in known.items()
    ]
    return Table(("prompts", "the answer…", "wanted", *evaluations), rows)


def verification_table(verifications: dict[str, dict], sizes: dict[str, int]) -> Table:
    """How large each GGUF is, and how far from what it was made from; `sizes` are bytes."""
    rows = [
        (
            name,
            size(sizes[name]),
            f"{v['kl_mean']:.1e}",
            f"{v['kl_p99']:.1e}",
            f"{v['same_top']:.2%}",
            f"{v['perplexity_ratio']:.4f} ± {v['perplexity_ratio_stderr']:.4f}",
            " ".join(f"{count} {name}" for name, count in v["types"].items()),
            str(v["fallback"]),
        )
        for name, v in verifications.items()
    ]
    header = ("GGUF", "size", "divergence, mean", "divergence, 99 %", "same top token", "perplexity ratio", "tensors")
    return Table((*header, "fallbacks"), rows)


def gates_table(judged: list[dict]) -> Table:
    return Table(
        ("gate", "result", "seen"), [(g["gate"], "PASS" if g["passes"] else "FAIL", g["seen"]) for g in judged]
    )


def _part(figures: dict, key: str) -> str:
    return share(figures[key]) if key in figures else MISSING


def _seen(evaluation: dict, category: str, finding: str) -> str:
    found = evaluation.get("safety", {}).get(category, {})
    one = found.get("findings", {}).get(finding)
    return f"{one['seen']} of {found['prompts']}" if one else MISSING
