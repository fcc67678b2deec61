"""The picture of a training."""

import csv
import io
import statistics

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from stages.lib.rendering.svg import COLOUR, GREY, SECOND, as_svg

SMOOTHED = 4  # a running median is drawn where there are so many times its steps
COLUMNS = ("loss", "eval_loss", "learning_rate", "grad_norm")


def loss_curve(table: str) -> str:
    """Loss over optimiser steps, from the training stage's CSV; below it the learning rate and the gradient's norm.

    Of a long training, the strong line is a running median, and the thin one behind it the loss of each step.
    """
    rows = list(csv.DictReader(io.StringIO(table)))
    points = {name: [(int(row["step"]), float(row[name])) for row in rows if row[name]] for name in COLUMNS}
    steps, losses = zip(*points["loss"], strict=True)
    half = max(7, len(steps) // 80)
    figure, (upper, lower) = plt.subplots(2, figsize=(4.2, 3.8), height_ratios=(2.5, 1), sharex=True)
    if len(steps) > SMOOTHED * half:
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
