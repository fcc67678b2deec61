"""Quality gates: what a reader wants to know before using a model, each passed or failed."""

from typing import NamedTuple

from stages.lib.evaluation.metrics.comparison import pair
from stages.lib.evaluation.metrics.measures import MEASURES
from stages.lib.settings.gates import Gates
from stages.lib.settings.model_names import BASE, IN_TRANSFORMERS, TUNED

ROUNDING = 1e-9  # points: 2.0 of them are no more than 2.0, whatever the floats say


class Gate(NamedTuple):
    """A condition, whether it holds, and what was observed."""

    gate: str
    passes: bool
    observed: str


def judge(settings: Gates, scores: dict[str, dict], comparisons: dict[str, dict], data: dict) -> list[Gate]:
    """Tuning helped, quantising harmed little, answers end with EOS, no test text was learnt.

    `scores` are by model; `comparisons` have the keys "tuned against base" and "q4_K_M against tuned"; `data` is
    metrics/data.json.
    """
    gates = [_helped(measure, comparisons[pair(BASE, TUNED)][measure]) for measure in settings.better]
    for name in (name for name in scores if name not in IN_TRANSFORMERS):
        gates += _quantized(settings, name, scores[name], scores[TUNED])
    gates += [_stops(settings.stopped, name, score["stopped"]) for name, score in scores.items() if name != BASE]
    return [*gates, _unseen(data)]


def _helped(measure: str, compared: dict) -> Gate:
    low, high = compared["low"], compared["high"]
    observed = f"{compared['verdict']}: {compared['difference']:+.3g}, 95 % interval {low:+.3g} to {high:+.3g}"
    label = MEASURES[measure].label
    return Gate(f"tuned is better than base in {label}", compared["verdict"] == "better", observed)


def _quantized(settings: Gates, name: str, score: dict, tuned: dict) -> list[Gate]:
    gained = 100 * (score["accuracy"] - tuned["accuracy"])
    above = score["perplexity"] / tuned["perplexity"] - 1
    points = f"{name} loses at most {settings.quantized_points:g} points of {MEASURES['accuracy'].label} to tuned"
    perplexity = f"{name}'s perplexity is at most {settings.quantized_perplexity:.0%} above tuned's"
    return [
        Gate(points, -gained <= settings.quantized_points + ROUNDING, f"{gained:+.2f} points"),
        Gate(perplexity, above <= settings.quantized_perplexity, f"{above:+.2%}"),
    ]


def _stops(wanted: float, name: str, stopped: float) -> Gate:
    return Gate(f"{wanted:.0%} of the answers of {name} end with EOS", stopped >= wanted, f"{stopped:.1%}")


def _unseen(data: dict) -> Gate:
    overlap = data["overlap"]
    gate = f"no test record shares a word {data['overlap_words']}-gram with a training text"
    return Gate(gate, not any(overlap.values()), ", ".join(f"{count} of {name}" for name, count in overlap.items()))
