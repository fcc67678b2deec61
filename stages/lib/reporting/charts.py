"""Pictures of the evaluation: a list of panels each, drawn together into a file or one by one into a page."""

from collections.abc import Callable
from functools import partial

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from stages.lib.drawing import COLOUR, GREY, INK, SECOND, as_svg
from stages.lib.figures import MEASURES, MISSING, WAYS, heading, size, value
from stages.lib.medqa import LETTERS
from stages.lib.tables import CHOICES

Panel = Callable[[plt.Axes], None]
Picture = tuple[float, float, list[Panel]]  # inches across and down of one panel, the panels


def pictures(
    evaluations: dict[str, dict], verifications: dict[str, dict], sizes: dict[str, int], shown: list[str]
) -> dict[str, Picture]:
    """Every picture; `shown` are the models where there is no room for all. A panel is no wider than a phone shows."""
    some, count = [evaluations[name] for name in shown], len(evaluations)
    quants = partial(size_and_quality, verifications=verifications, sizes=sizes)
    return {
        "models": (
            3.7,
            0.26 * count + 0.85,
            [partial(intervals, evaluations=evaluations, measure=m) for m in MEASURES],
        ),
        "steps": (3.7, 0.4 * count + 1.0, [partial(by_step, evaluations=evaluations, way=way) for way in WAYS]),
        "calibration": (4.2, 4.0, [partial(calibration, evaluations=some)]),
        "letters": (3.7, 2.6, [partial(letters, evaluations=some, way=way) for way in CHOICES]),
        "quants": (4.0, 3.2, [partial(quants, measure=m) for m in ("perplexity_ratio", "kl_mean")]),
    }


def drawn(width: float, height: float, panel: Panel) -> str:
    """One panel as SVG."""
    figure, axes = plt.subplots(figsize=(width, height))
    panel(axes)
    return as_svg(figure)


def intervals(axes: plt.Axes, evaluations: dict[str, dict], measure: str) -> None:
    """One measure of every model: a dot, its 95 % interval, its figure."""
    known = {name: e for name, e in evaluations.items() if measure in e}
    scale = 100 if MEASURES[measure].percent else 1
    for y, (name, e) in enumerate(evaluations.items()):
        axes.annotate(
            value(measure, e), (1.02, y), xycoords=("axes fraction", "data"), va="center", annotation_clip=False
        )
        if name in known:
            ends = [scale * e.get(f"{measure}_{end}", e[measure]) for end in ("low", "high")]
            axes.plot(ends, (y, y), color=_colour(name), linewidth=2.2, solid_capstyle="butt")
            axes.plot(scale * e[measure], y, "o", color=_colour(name), markersize=6)
    if measure in WAYS:
        _guess(axes)
    _names(axes, list(evaluations))
    axes.set_title(heading(measure), loc="left", size=10, weight="bold")


def by_step(axes: plt.Axes, evaluations: dict[str, dict], way: str) -> None:
    """MedQA of every model, a dot and its 95 % interval for each step of the exam."""
    names = list(dict.fromkeys(step for e in evaluations.values() for step in e.get("by_step", {})))
    for i, step in enumerate(names):
        colour, mark = ((COLOUR, "o"), (SECOND, "s"), (GREY, "D"))[i % 3]
        axes.plot([], [], mark, color=colour, markersize=5, label=step)
        for y, e in enumerate(evaluations.values()):
            found, place = e.get("by_step", {}).get(step, {}), y + 0.24 * (i - (len(names) - 1) / 2)
            if way in found:
                ends = [100 * found.get(f"{way}_{end}", found[way]) for end in ("low", "high")]
                axes.plot(ends, (place, place), color=colour, linewidth=2.2, solid_capstyle="butt")
                axes.plot(100 * found[way], place, mark, color=colour, markersize=5)
            else:
                axes.annotate(MISSING, (25, place), (4, 0), textcoords="offset points", va="center", size=8)
    _guess(axes)
    if names:
        axes.legend(frameon=False, ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1))
    _names(axes, list(evaluations))
    axes.set_xlabel(f"{heading(way)} (%)")


def calibration(axes: plt.Axes, evaluations: list[dict]) -> None:
    """How often the chosen letter is right, against the probability that it was given; larger dots, more questions."""
    axes.plot((0, 1), (0, 1), color=INK, linewidth=0.8, linestyle=":")
    for e in evaluations:
        bins = e.get("calibration", [])
        most = max((one["questions"] for one in bins), default=1)
        points = [one["confidence"] for one in bins], [one["accuracy"] for one in bins]
        label = f"{e['name']} (error {e['calibration_error']:.3f})" if bins else f"{e['name']} ({MISSING})"
        axes.plot(*points, color=_colour(e["name"]), linewidth=1.2, label=label)
        areas = [10 + 90 * one["questions"] / most for one in bins]
        axes.scatter(*points, s=areas, color=_colour(e["name"]), linewidths=0)
    axes.set(
        aspect="equal",
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="probability of the chosen letter",
        ylabel="share of these right",
    )
    axes.legend(frameon=False, loc="upper left")


def letters(axes: plt.Axes, evaluations: list[dict], way: str) -> None:
    """How often each letter is chosen, in percent; a tick where it is right that often."""
    right = next((e["right"] for e in evaluations if "right" in e), {})
    for y, letter in enumerate(LETTERS):
        if right:
            place = 100 * right.get(letter, 0) / sum(right.values())
            axes.plot((place, place), (y - 0.36, y + 0.36), color=INK, linewidth=1.6, label="" if y else "right")
        for i, e in enumerate(evaluations):
            counts, place = e.get("chosen", {}).get(way), y + 0.22 * (i - (len(evaluations) - 1) / 2)
            part = 100 * counts.get(letter, 0) / e["questions"] if counts else 0
            label = "" if y else e["name"] if counts else f"{e['name']} ({MISSING})"
            axes.plot((0, part), (place, place), color=_colour(e["name"]), linewidth=1)
            axes.plot(part, place, "o", color=_colour(e["name"]), markersize=5, label=label)
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1)}
    axes.legend(frameon=False, ncols=4, handlelength=1, columnspacing=1, handletextpad=0.4, **above)
    axes.set_xlim(left=0)
    _names(axes, list(LETTERS))
    axes.set_xlabel(f"chosen {CHOICES[way]} (%)")


def size_and_quality(axes: plt.Axes, verifications: dict[str, dict], sizes: dict[str, int], measure: str) -> None:
    """Size of each quantised GGUF against what it lost: nearer to the lower left is the one to take.

    `perplexity_ratio` has its 95 % interval, and f16 as a line; `kl_mean` is on a log scale.
    """
    unit, name = (1e9, "GB") if sizes["f16"] >= 1e9 else (1e6, "MB")
    smallest_first = sorted(verifications, key=lambda kind: sizes[kind])
    kinds = {kind: (sizes[kind] / unit, verifications[kind]) for kind in smallest_first if kind != "f16"}
    for i, (kind, (x, v)) in enumerate(kinds.items()):
        if measure == "perplexity_ratio":
            axes.errorbar(x, v[measure], 1.96 * v["perplexity_ratio_stderr"], color=SECOND, capsize=3, linewidth=1.2)
        axes.plot(x, v[measure], "o", color=SECOND, markersize=7)
        # Aslant and on both sides in turn, so that types of nearly one size do not write over each other.
        side = {"ha": "right", "va": "top", "xytext": (-3, -3)} if i % 2 else {"xytext": (3, 3)}
        axes.annotate(kind, (x, v[measure]), textcoords="offset points", rotation=45, rotation_mode="anchor", **side)
    if measure == "kl_mean":
        axes.set_yscale("log")
        axes.set_title("divergence from f16 (nats) ↓", loc="left", size=10, weight="bold")
    else:
        axes.axhline(1, color=COLOUR, linewidth=1, linestyle="--", label=f"f16, {size(sizes['f16'])}")
        axes.legend(frameon=False, loc="upper right")
        axes.set_title("perplexity over f16's ↓", loc="left", size=10, weight="bold")
        axes.yaxis.set_major_formatter("{x:.3f}")
    axes.margins(y=0.3)
    axes.set_xlim(0, 1.25 * max(x for x, _ in kinds.values()))
    axes.set_xlabel(f"size of the file ({name}) ↓")


def _names(axes: plt.Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))


def _guess(axes: plt.Axes) -> None:
    axes.axvline(25, color=INK, linewidth=0.8, linestyle=":")


def _colour(name: str) -> str:
    return {"base": GREY, "adapter": COLOUR, "tuned": COLOUR, "f16": COLOUR}.get(name, SECOND)
