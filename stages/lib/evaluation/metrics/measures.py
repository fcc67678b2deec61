"""The one table of measures: what models are compared by, as functions of their predictions, and how they are shown."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from stages.lib.evaluation.metrics import bootstrap, text, wilson
from stages.lib.evaluation.metrics.exams import WAYS, correct


class Measure(NamedTuple):
    """`units` makes of the predictions of a kind the terms, shape (rows, k), whose sums `value` makes the figure of."""

    kind: str
    units: Callable[[list[dict]], np.ndarray]
    value: bootstrap.Value
    more_is_better: bool
    label: str
    decimals: int
    percent: bool  # a fraction, shown as a percentage
    hub_type: str | None  # the name of the metric on the Hugging Face Hub; None: not in the model's card


def _columns(*names: str) -> Callable[[list[dict]], np.ndarray]:
    return lambda rows: np.array([[row[name] for name in names] for row in rows], float)


def _perplexity(sums: np.ndarray) -> np.ndarray:
    return np.exp(bootstrap.ratio(sums))


def _bits(sums: np.ndarray) -> np.ndarray:
    return bootstrap.ratio(sums) / np.log(2)


def _rouge(rows: list[dict]) -> np.ndarray:
    return np.column_stack([text.rouge_l(rows), np.ones(len(rows))])


def _sacrebleu(measure: str, label: str) -> Measure:
    return Measure(
        "dialogue", partial(text.counts, measure), partial(text.of_counts, measure), True, label, 1, False, measure
    )


def _accuracy(way: str) -> Measure:
    label = f"MedQA {WAYS[way].label}"
    return Measure("medqa", partial(correct, way=way), bootstrap.ratio, True, label, 1, True, "accuracy")


MEASURES = {
    "perplexity": Measure(
        "likelihood", _columns("nats", "tokens"), _perplexity, False, "perplexity", 3, False, "perplexity"
    ),
    "bits_per_byte": Measure("likelihood", _columns("nats", "bytes"), _bits, False, "bits per byte", 3, False, None),
    "bleu": _sacrebleu("bleu", "BLEU-4"),
    "rouge_l": Measure("dialogue", _rouge, bootstrap.ratio, True, "ROUGE-L", 1, True, "rouge"),
    "chrf": _sacrebleu("chrf", "chrF"),
} | {measure: _accuracy(way) for way, (measure, _) in WAYS.items()}
TEXT_MEASURES = tuple(name for name, measure in MEASURES.items() if measure.kind != "medqa")
EXAM_MEASURES = tuple(name for name, measure in MEASURES.items() if measure.kind == "medqa")


def measured(predictions: list[dict]) -> dict[str, float]:
    """Each measure of one model's predictions, with `…_low` and `…_high` where an interval can be given.

    Shares of questions have Wilson's interval, of however many; the others one by bootstrap.
    """
    figures: dict[str, float] = {}
    for name, measure in MEASURES.items():
        units = of_kind(measure, predictions)
        ends = wilson.interval(units) if measure.kind == "medqa" else bootstrap.interval(units, measure.value)
        figures[name] = float(measure.value(units.sum(0, keepdims=True))[0])
        if ends:
            figures |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
    return figures


def of_kind(measure: Measure, predictions: list[dict]) -> np.ndarray:
    """The terms of a measure's sums for each distinct dialogue or question, in the predictions' order."""
    rows = [row for row in predictions if row["kind"] == measure.kind]
    return bootstrap.by_id(measure.units(rows), [row["id"] for row in rows])
