"""Pictures of the report, as SVG text; the same figures always give the same bytes."""

import csv
import io
import statistics

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "llama3-chatdoctor"  # else element ids are random
matplotlib.rcParams["svg.fonttype"] = "none"
import matplotlib.pyplot as plt  # noqa: E402 — after the backend is chosen
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator  # noqa: E402

COLOUR, SECOND, GREY = "#2f7d6b", "#c0622d", "#777777"


def loss_curve(table: str) -> str:
    """Loss over optimiser steps, from the training stage's CSV; below it the learning rate and the gradient's norm.

    Of a long training, the strong line is a running median, and the thin one behind it the loss of each step.
    """
    rows = list(csv.DictReader(io.StringIO(table)))
    columns = ("loss", "eval_loss", "learning_rate", "grad_norm")
    points = {name: [(int(row["step"]), float(row[name])) for row in rows if row[name]] for name in columns}
    steps, losses = zip(*points["loss"], strict=True)
    half = max(7, len(steps) // 80)
    figure, (upper, lower) = plt.subplots(2, figsize=(6.4, 4.4), height_ratios=(3, 1), sharex=True)
    if len(steps) > 4 * half:
        smooth = [statistics.median(losses[max(0, i - half) : i + half + 1]) for i in range(len(steps))]
        upper.plot(steps, losses, color=COLOUR, linewidth=0.6, alpha=0.35)
        upper.plot(steps, smooth, color=COLOUR, label=f"training (median of {2 * half + 1} steps)")
    else:
        upper.plot(steps, losses, color=COLOUR, marker=".", label="training")
    if points["eval_loss"]:
        upper.plot(*zip(*points["eval_loss"], strict=True), "o", color=SECOND, markersize=4, label="validation")
    upper.set_ylabel("loss per trained token (nats)")
    upper.legend(frameon=False)
    norm = lower.twinx()
    lower.plot(*zip(*points["learning_rate"], strict=True), color=SECOND)
    norm.plot(*zip(*points["grad_norm"], strict=True), color=GREY, linewidth=0.6)
    lower.set_ylabel("learning rate", color=SECOND)
    norm.set_ylabel("gradient norm", color=GREY)
    for axes in (lower, norm):
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:g}")
    lower.set_xlabel("optimiser step")
    lower.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=(1, 2, 5, 10)))
    return as_svg(figure)


def compared(evaluations: list[dict]) -> str:
    """Perplexity, BLEU-4 and MedQA exact match of every model, side by side, with standard errors where known."""
    measures = (
        ("perplexity", "perplexity (log scale)", 1.0),
        ("bleu", "BLEU-4", 1.0),
        ("exact_match", "MedQA exact match (%)", 100.0),
    )
    names = [e["name"] for e in evaluations]
    figure, row = plt.subplots(1, len(measures), figsize=(9.6, 0.5 * len(names) + 1.2), sharey=True)
    for axes, (key, label, scale) in zip(row, measures, strict=True):
        values = [scale * e[key] for e in evaluations]
        errors = [scale * e.get(f"{key}_stderr", 0.0) for e in evaluations]
        axes.barh(names, values, xerr=errors, color=[GREY if name == "base" else COLOUR for name in names], height=0.6)
        for y, value in enumerate(values):
            axes.annotate(f"{value:.1f}", (value, y), xytext=(8, 0), textcoords="offset points", va="center")
        axes.set_xlabel(label)
        axes.margins(x=0.25)
        if key == "perplexity":
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
    row[0].invert_yaxis()
    return as_svg(figure)


def as_svg(figure) -> str:
    """A figure as SVG text without a date; the figure is closed."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    out = io.StringIO()
    figure.tight_layout()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
