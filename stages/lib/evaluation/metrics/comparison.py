"""Two models beside each other, prediction by prediction."""

from stages.lib.core.errors import UserError
from stages.lib.evaluation.metrics import bootstrap
from stages.lib.evaluation.metrics.measures import MEASURES, of_kind

TOO_FEW = "too few to tell"  # units: fewer than bootstrap.FEWEST


def pair(one: str, other: str) -> str:
    """The name of a comparison, e.g. "tuned against base" of base and tuned."""
    return f"{other} against {one}"


def compare(one: list[dict], other: list[dict]) -> dict[str, dict]:
    """Of each measure the `difference` (other less one), its 95 % interval `low` to `high`, `p`, and a `verdict`.

    Both are the predictions of the same dialogues and questions; `units` counts the distinct ones. The verdict on the
    other is "better" or "worse" where the interval leaves 0 out, else "no difference shown". p: McNemar's exact test
    for MedQA, paired bootstrap for the rest. Of fewer than bootstrap.FEWEST units there is neither interval nor p, and
    the verdict is TOO_FEW. Raises UserError where the predictions are not of the same.
    """
    if [(row["id"], row["kind"]) for row in one] != [(row["id"], row["kind"]) for row in other]:
        raise UserError(
            "metrics/models: two models were asked different things; ask them anew: `dvc repro --force predict`"
        )
    compared = {}
    for name, measure in MEASURES.items():
        first, second = (of_kind(measure, rows) for rows in (one, other))
        seen: dict = {"units": len(first)} | bootstrap.paired(first, second, measure.value)
        if measure.kind == "medqa" and "p" in seen:
            seen["p"] = bootstrap.mcnemar(first[:, 0], second[:, 0])
        compared[name] = seen | {"verdict": _verdict(seen, measure.more_is_better)}
    return compared


def _verdict(seen: dict, more_is_better: bool) -> str:
    if "low" not in seen:
        return TOO_FEW
    if seen["low"] <= 0 <= seen["high"]:
        return "no difference shown"
    return "better" if (seen["low"] > 0) == more_is_better else "worse"
