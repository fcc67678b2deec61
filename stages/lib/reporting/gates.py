"""Quality gates: what a reader wants to know before using a model, each passed, failed or not to be told."""

from typing import NamedTuple

from stages.lib.evaluation.metrics.bootstrap import FEWEST
from stages.lib.evaluation.metrics.comparison import TOO_FEW, pair
from stages.lib.evaluation.metrics.measures import MEASURES
from stages.lib.settings.gates import Gates
from stages.lib.settings.model_names import BASE, IN_TRANSFORMERS, TUNED

PASS = "PASS"
FAIL = "FAIL"
ROUNDING = 1e-9  # points: 2.0 of them are no more than 2.0, whatever the floats say


class Gate(NamedTuple):
    """A condition, whether it holds (PASS, FAIL or TOO_FEW), and what was observed."""

    gate: str
    result: str
    observed: str


def judge(settings: Gates, scores: dict[str, dict], comparisons: dict[str, dict], data: dict) -> list[Gate]:
    """Tuning helped, quantising harmed little, answers end with EOS, no test text was learnt.

    Of fewer than FEWEST distinct dialogues or questions a gate neither passes nor fails: too few to tell.
    `scores` are by model; `comparisons` have the keys "tuned against base" and "q4_K_M against tuned"; `data` is
    metrics/data.json.
    """
    gates = [_helped(measure, comparisons[pair(BASE, TUNED)][measure]) for measure in settings.better]
    for name in (name for name in scores if name not in IN_TRANSFORMERS):
        gates += _quantized(settings, name, scores[name], scores[TUNED], comparisons[pair(TUNED, name)])
    gates += [_stops(settings.stopped, name, score) for name, score in scores.items() if name != BASE]
    return [*gates, _unseen(data)]


def _helped(measure: str, compared: dict) -> Gate:
    gate = f"tuned is better than base in {MEASURES[measure].label}"
    observed = f"{compared['difference']:+.3g}"
    if compared["verdict"] != TOO_FEW:
        observed = f"{compared['verdict']}: {observed}, 95 % interval {compared['low']:+.3g} to {compared['high']:+.3g}"
    unit = "distinct questions" if MEASURES[measure].kind == "medqa" else "dialogues"
    return _judged(gate, compared["verdict"] == "better", observed, unit, compared["units"])


def _quantized(settings: Gates, name: str, score: dict, tuned: dict, compared: dict) -> list[Gate]:
    gained = 100 * (score["accuracy"] - tuned["accuracy"])
    above = score["perplexity"] / tuned["perplexity"] - 1
    points = f"{name} loses at most {settings.quantized_points:g} points of {MEASURES['accuracy'].label} to tuned"
    perplexity = f"{name}'s perplexity is at most {settings.quantized_perplexity:.0%} above tuned's"
    kept, near = -gained <= settings.quantized_points + ROUNDING, above <= settings.quantized_perplexity
    return [
        _judged(points, kept, f"{gained:+.2f} points", "distinct questions", compared["accuracy"]["units"]),
        _judged(perplexity, near, f"{above:+.2%}", "dialogues", compared["perplexity"]["units"]),
    ]


def _stops(wanted: float, name: str, score: dict) -> Gate:
    gate, observed = f"{wanted:.0%} of the answers of {name} end with EOS", f"{score['stopped']:.1%}"
    holds = score["stopped"] >= wanted
    if not holds and score["stopped_high"] < wanted:  # then few answers tell it too
        return Gate(gate, FAIL, observed)
    return _judged(gate, holds, observed, "answers", score["answers"])


def _judged(gate: str, holds: bool, observed: str, unit: str, count: int) -> Gate:
    """A gate on what was measured of `count` dialogues, answers or distinct questions; `unit` says which."""
    if count < FEWEST:
        return Gate(gate, TOO_FEW, f"{observed}; {unit}: {count}, at least {FEWEST} are needed")
    return Gate(gate, PASS if holds else FAIL, observed)


def _unseen(data: dict) -> Gate:
    overlap = data["overlap"]
    gate = f"no test record shares a word {data['overlap_words']}-gram with a training text"
    observed = ", ".join(f"{count} of {name}" for name, count in overlap.items())
    return Gate(gate, FAIL if any(overlap.values()) else PASS, observed)
