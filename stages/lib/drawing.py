"""Pictures of the report, as SVG text; the same figures always give the same bytes."""

import csv
import io

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "llama3-chatdoctor"  # else element ids are random
matplotlib.rcParams["svg.fonttype"] = "none"
import matplotlib.pyplot as plt  # noqa: E402 — after the backend is chosen
from matplotlib.ticker import LogLocator, NullLocator  # noqa: E402

COLOUR, SECOND, GREY = "#2f7d6b", "#c0622d", "#777777"


def loss_curve(table: str) -> str:
    """Training and validation loss over optimiser steps, from the training stage's CSV."""
    rows = list(csv.DictReader(io.StringIO(table)))
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    for column, label, colour, marker in (("loss", "training", COLOUR, ""), ("eval_loss", "validation", SECOND, "o")):
        points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, color=colour, marker=marker)
    axes.set(xlabel="optimiser step", ylabel="loss per trained token (nats)")
    axes.legend(frameon=False)
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
