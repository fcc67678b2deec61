"""Pictures of the evaluation: a list of panels each, drawn together into a file or one by one into a page."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from stages.lib.core.paths import F16
from stages.lib.evaluation.metrics.exams import WAYS, Guessing
from stages.lib.evaluation.metrics.measures import EXAM_MEASURES, MEASURES
from stages.lib.rendering.svg import COLOUR, GREY, INK, SECOND, as_svg
from stages.lib.reporting.formatting import MISSING, heading, size, value
from stages.lib.settings.model_names import BASE, IN_TRANSFORMERS

COLUMNS = 4  # of panels in a file, at most
Panel = Callable[[plt.Axes], None]


class Picture(NamedTuple):
    """Panels of one size, in inches; a panel is no wider than a phone shows."""

    width: float
    height: float
    panels: list[Panel]

    def each(self) -> list[str]:
        """Each panel as an SVG of its own."""
        return [self._drawn([panel]) for panel in self.panels]

    def together(self) -> str:
        """All panels as one SVG, side by side."""
        return self._drawn(self.panels)

    def _drawn(self, panels: list[Panel]) -> str:
        columns = min(COLUMNS, len(panels))
        rows = -(-len(panels) // columns)
        inches = (columns * self.width, rows * self.height)
        figure, grid = plt.subplots(rows, columns, figsize=inches, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            panel(axes)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        return as_svg(figure)


def pictures(
    scores: dict[str, dict], verifications: dict[str, dict], guessing: Guessing, shown: list[str]
) -> dict[str, Picture]:
    """Every picture by name; `shown` are the models where there is no room for all."""
    some = [scores[name] for name in shown]
    count = len(scores)
    return {
        "models": Picture(
            3.7,
            0.26 * count + 0.85,
            [partial(intervals, scores=scores, measure=name, chance=guessing.overall) for name in MEASURES],
        ),
        "steps": Picture(
            3.7,
            0.4 * count + 1.0,
            [partial(by_step, scores=scores, measure=name, chances=guessing.by_step) for name in EXAM_MEASURES],
        ),
        "calibration": Picture(4.2, 4.0, [partial(calibration, scores=some)]),
        "letters": Picture(3.7, 2.6, [partial(letters, scores=some, way=way) for way in WAYS]),
        "quants": Picture(
            4.0,
            3.2,
            [
                partial(perplexity_by_size, verifications=verifications),
                partial(divergence_by_size, verifications=verifications),
            ],
        ),
    }


def intervals(axes: plt.Axes, scores: dict[str, dict], measure: str, chance: float) -> None:
    """One measure of every model: a dot, its 95 % interval, its figure."""
    known = {name: score for name, score in scores.items() if measure in score}
    scale = 100 if MEASURES[measure].percent else 1
    for y, (name, score) in enumerate(scores.items()):
        axes.annotate(
            value(measure, score), (1.02, y), xycoords=("axes fraction", "data"), va="center", annotation_clip=False
        )
        if name in known:
            ends = [scale * score.get(f"{measure}_{end}", score[measure]) for end in ("low", "high")]
            axes.plot(ends, (y, y), color=_colour(name), linewidth=2.2, solid_capstyle="butt")
            axes.plot(scale * score[measure], y, "o", color=_colour(name), markersize=6)
    if measure in EXAM_MEASURES:
        _guess(axes, chance)
    _names(axes, list(scores))
    axes.set_title(heading(measure), loc="left", size=10, weight="bold")


def by_step(axes: plt.Axes, scores: dict[str, dict], measure: str, chances: dict[str, float]) -> None:
    """MedQA of every model, a dot and its 95 % interval for each step of the exam.

    `chances`: what guessing gives in each step; where they differ, their lines have the colours of the steps.
    """
    guesses: dict[float, str] = {}
    for i, (step, chance) in enumerate(chances.items()):
        colour, mark = ((COLOUR, "o"), (SECOND, "s"), (GREY, "D"))[i % 3]
        guesses.setdefault(chance, colour)
        axes.plot([], [], mark, color=colour, markersize=5, label=step)
        for y, score in enumerate(scores.values()):
            found = score.get("by_step", {}).get(step, {})
            place = y + 0.24 * (i - (len(chances) - 1) / 2)
            if measure in found:
                ends = [100 * found.get(f"{measure}_{end}", found[measure]) for end in ("low", "high")]
                axes.plot(ends, (place, place), color=colour, linewidth=2.2, solid_capstyle="butt")
                axes.plot(100 * found[measure], place, mark, color=colour, markersize=5)
            else:
                axes.annotate(MISSING, (100 * chance, place), (4, 0), textcoords="offset points", va="center", size=8)
    for chance, colour in guesses.items():
        _guess(axes, chance, colour if len(guesses) > 1 else INK)
    axes.legend(frameon=False, ncols=len(chances), loc="lower center", bbox_to_anchor=(0.5, 1))
    _names(axes, list(scores))
    axes.set_xlabel(f"{heading(measure)} (%)")


def calibration(axes: plt.Axes, scores: list[dict]) -> None:
    """Accuracy of the chosen letter against the probability that it was given; larger dots, more questions."""
    axes.plot((0, 1), (0, 1), color=INK, linewidth=0.8, linestyle=":")
    for score in scores:
        bins = score.get("calibration", [])
        most = max((one["questions"] for one in bins), default=1)
        points = ([one["confidence"] for one in bins], [one["accuracy"] for one in bins])
        label = f"{score['name']} (error {score['calibration_error']:.3f})" if bins else f"{score['name']} ({MISSING})"
        axes.plot(*points, color=_colour(score["name"]), linewidth=1.2, label=label)
        areas = [10 + 90 * one["questions"] / most for one in bins]
        axes.scatter(*points, s=areas, color=_colour(score["name"]), linewidths=0)
    axes.set(aspect="equal", xlim=(0, 1), ylim=(0, 1), xlabel="probability of the chosen letter", ylabel="accuracy")
    axes.legend(frameon=False, loc="upper left")


def letters(axes: plt.Axes, scores: list[dict], way: str) -> None:
    """How often each letter is chosen, in percent; a tick where it is correct that often."""
    correct: dict[str, int] = next((score["correct"] for score in scores if "correct" in score), {})
    places = np.arange(len(correct))
    if correct:
        often = [100 * count / sum(correct.values()) for count in correct.values()]
        axes.vlines(often, places - 0.36, places + 0.36, INK, linewidth=1.6, label="correct")
    for i, score in enumerate(scores):
        chosen = score.get("chosen", {}).get(way)
        label = score["name"] if chosen else f"{score['name']} ({MISSING})"
        lines = places + 0.22 * (i - (len(scores) - 1) / 2)
        shares = [100 * (chosen or {}).get(letter, 0) / score["questions"] for letter in correct]
        axes.hlines(lines, 0, shares, _colour(score["name"]), linewidth=1)
        axes.plot(shares, lines, "o", color=_colour(score["name"]), markersize=5, label=label)
    tight = {"handlelength": 1, "columnspacing": 1, "handletextpad": 0.4}
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1), **tight)
    axes.set_xlim(left=0)
    _names(axes, list(correct))
    axes.set_xlabel(f"chosen {WAYS[way].label} (%)")


def perplexity_by_size(axes: plt.Axes, verifications: dict[str, dict]) -> None:
    """What each quantised GGUF lost in perplexity, with its 95 % interval, against its size; f16 as a line."""
    points = _by_size(verifications)
    for x, verified in points.values():
        error = 1.96 * verified["perplexity_ratio_stderr"]
        axes.errorbar(x, verified["perplexity_ratio"], error, color=SECOND, capsize=3, linewidth=1.2)
    _name_points(axes, {name: (x, verified["perplexity_ratio"]) for name, (x, verified) in points.items()})
    axes.axhline(1, color=COLOUR, linewidth=1, linestyle="--", label=f"f16, {size(verifications[F16]['bytes'])}")
    axes.legend(frameon=False, loc="upper right")
    axes.set_title("perplexity over f16's ↓", loc="left", size=10, weight="bold")
    axes.yaxis.set_major_formatter("{x:.3f}")
    _size_axis(axes, verifications)


def divergence_by_size(axes: plt.Axes, verifications: dict[str, dict]) -> None:
    """How far each quantised GGUF diverges from f16, on a log scale, against its size."""
    points = _by_size(verifications)
    _name_points(axes, {name: (x, verified["kl_mean"]) for name, (x, verified) in points.items()})
    axes.set_yscale("log")
    axes.set_title("KL divergence from f16 (nats) ↓", loc="left", size=10, weight="bold")
    _size_axis(axes, verifications)


def _unit(verifications: dict[str, dict]) -> tuple[float, str]:
    return (1e9, "GB") if verifications[F16]["bytes"] >= 1e9 else (1e6, "MB")


def _by_size(verifications: dict[str, dict]) -> dict[str, tuple[float, dict]]:
    """The quantised GGUFs, the smallest first: size on the axis, what was verified."""
    unit, _ = _unit(verifications)
    quantized = {name: verified for name, verified in verifications.items() if name != F16}
    smallest_first = sorted(quantized, key=lambda name: quantized[name]["bytes"])
    return {name: (quantized[name]["bytes"] / unit, quantized[name]) for name in smallest_first}


def _name_points(axes: plt.Axes, points: dict[str, tuple[float, float]]) -> None:
    """A dot and its name each, aslant and on both sides in turn, so that names of nearly one size stay apart."""
    for i, (name, point) in enumerate(points.items()):
        axes.plot(*point, "o", color=SECOND, markersize=7)
        side = {"ha": "right", "va": "top", "xytext": (-3, -3)} if i % 2 else {"xytext": (3, 3)}
        axes.annotate(name, point, textcoords="offset points", rotation=45, rotation_mode="anchor", **side)


def _size_axis(axes: plt.Axes, verifications: dict[str, dict]) -> None:
    axes.margins(y=0.3)
    axes.set_xlim(0, 1.25 * max(x for x, _ in _by_size(verifications).values()))
    axes.set_xlabel(f"size of the file ({_unit(verifications)[1]}) ↓")


def _names(axes: plt.Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))


def _guess(axes: plt.Axes, chance: float, colour: str = INK) -> None:
    axes.axvline(100 * chance, color=colour, linewidth=0.8, linestyle=":")


def _colour(name: str) -> str:
    if name == BASE:
        return GREY
    return COLOUR if name in (*IN_TRANSFORMERS, F16) else SECOND
