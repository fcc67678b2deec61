"""Every figure that models are compared by, as a function of their predictions, with its 95 % interval."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from stages.lib import bootstrap, similarity
from stages.lib.exam import WAYS, right


class Measure(NamedTuple):
    """`units` makes of the predictions of a kind the terms, shape (rows, k), whose sums `value` makes the figure of."""

    kind: str
    units: Callable[[list[dict]], np.ndarray]
    value: bootstrap.Value
    more_is_better: bool


def _columns(*names: str) -> Callable[[list[dict]], np.ndarray]:
    return lambda rows: np.array([[row[name] for name in names] for row in rows], float)


def _rouge(rows: list[dict]) -> np.ndarray:
    return np.column_stack([similarity.rouge_l(rows), np.ones(len(rows))])


MEASURES = {
    "perplexity": Measure("likelihood", _columns("nats", "tokens"), lambda sums: np.exp(bootstrap.ratio(sums)), False),
    "bits_per_byte": Measure(
        "likelihood", _columns("nats", "bytes"), lambda sums: bootstrap.ratio(sums) / np.log(2), False
    ),
    "bleu": Measure("dialogue", partial(similarity.counts, "bleu"), partial(similarity.of_counts, "bleu"), True),
    "rouge_l": Measure("dialogue", _rouge, bootstrap.ratio, True),
    "chrf": Measure("dialogue", partial(similarity.counts, "chrf"), partial(similarity.of_counts, "chrf"), True),
} | {measure: Measure("medqa", partial(right, way=way), bootstrap.ratio, True) for way, measure in WAYS.items()}


def measured(predictions: list[dict]) -> dict[str, float]:
    """Each measure of one model's predictions, with `…_low` and `…_high`."""
    found = {}
    for name, measure in MEASURES.items():
        units = measure.units([row for row in predictions if row["kind"] == measure.kind])
        low, high = bootstrap.interval(units, measure.value)
        found |= {name: float(measure.value(units.sum(0, keepdims=True))[0]), f"{name}_low": low, f"{name}_high": high}
    return found
