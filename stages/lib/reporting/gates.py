"""Quality gates: what a reader wants to know before he uses a model, each passed or failed."""

from stages.lib.decontaminate import OVERLAP
from stages.lib.figures import MEASURES
from stages.lib.schema import Gates

BASE, TUNED = "base", "tuned"
WHOLE = (BASE, "adapter", TUNED)  # not quantised


def gates(
    settings: Gates, evaluations: dict[str, dict], comparisons: dict[str, dict[str, dict]], overlap: dict[str, int]
) -> list[dict]:
    """Each gate as {gate, passes, seen}: tuning helped, quantising harmed little, answers end, no test was learnt.

    `evaluations` are metrics by model; `comparisons` have the keys "tuned against base" and "q4_K_M against tuned".
    """
    found = []
    for measure in settings.better:
        seen = comparisons[f"{TUNED} against {BASE}"][measure]
        told = f"{seen['verdict']}: {seen['difference']:+.3g}, 95 % interval {seen['low']:+.3g} to {seen['high']:+.3g}"
        helped = f"tuned is better than base in {MEASURES[measure].label}"
        found.append(_gate(helped, seen["verdict"] == "better", told))
    tuned = evaluations[TUNED]
    for name in (name for name in evaluations if name not in WHOLE):
        one = evaluations[name]
        gained = 100 * (one["exact_match"] - tuned["exact_match"])
        above = one["perplexity"] / tuned["perplexity"] - 1
        most, share = settings.quantized_points, settings.quantized_perplexity
        points = f"{name} loses at most {most:g} points of MedQA by answer to tuned"
        found.append(_gate(points, -gained <= most + 1e-9, f"{gained:+.2f} points"))
        perplexity = f"{name}'s perplexity is at most {share:.0%} above tuned's"
        found.append(_gate(perplexity, above <= share, f"{above:+.2%}"))
    for name in (name for name in evaluations if name != BASE):
        stopped = evaluations[name]["stopped"]
        ends = f"{settings.stopped:.0%} of the answers of {name} end by themselves"
        found.append(_gate(ends, stopped >= settings.stopped, f"{stopped:.1%}"))
    shared = ", ".join(f"{count} of {name}" for name, count in overlap.items())
    found.append(
        _gate(f"no test shares {OVERLAP} words in a row with a training text", not any(overlap.values()), shared)
    )
    return found


def _gate(gate: str, passes: bool, seen: str) -> dict:
    return {"gate": gate, "passes": bool(passes), "seen": seen}
