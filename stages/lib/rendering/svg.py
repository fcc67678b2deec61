"""Pictures of the report, as SVG text; the same figures always give the same bytes."""

import csv
import io
import re
import statistics

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "llama3-chatdoctor"  # else element ids are random
matplotlib.rcParams["svg.fonttype"] = "none"
import matplotlib.pyplot as plt  # noqa: E402 — after the backend is chosen
from matplotlib.ticker import MaxNLocator  # noqa: E402

INK, COLOUR, SECOND, GREY = "#000000", "#2f7d6b", "#c0622d", "#777777"
matplotlib.rcParams["axes.prop_cycle"] = matplotlib.cycler(color=(COLOUR, SECOND, GREY))
BACKGROUND = "background"  # the id of the white rectangle behind a picture


def loss_curve(table: str) -> str:
    """Loss over optimiser steps, from the training stage's CSV; below it the learning rate and the gradient's norm.

    Of a long training, the strong line is a running median, and the thin one behind it the loss of each step.
    """
    rows = list(csv.DictReader(io.StringIO(table)))
    columns = ("loss", "eval_loss", "learning_rate", "grad_norm")
    points = {name: [(int(row["step"]), float(row[name])) for row in rows if row[name]] for name in columns}
    steps, losses = zip(*points["loss"], strict=True)
    half = max(7, len(steps) // 80)
    figure, (upper, lower) = plt.subplots(2, figsize=(4.2, 3.8), height_ratios=(2.5, 1), sharex=True)
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


def as_svg(figure) -> str:
    """A figure as SVG text without a date; the figure is closed.

    White behind, so that it reads on any page; `inline` takes that away for a page that has colours of its own.
    """
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.patch.set_visible(False)
    figure.patch.set_gid(BACKGROUND)
    out = io.StringIO()
    figure.tight_layout()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def side_by_side(pictures: list[str], columns: int = 4) -> str:
    """Pictures of `as_svg` that have one size, as one picture of as many columns at most; a single one as it is."""
    if len(pictures) == 1:
        return pictures[0]
    size = r' width="([\d.]+)pt" height="([\d.]+)pt"'
    width, height = map(float, re.search(size, pictures[0]).groups())
    columns = min(columns, len(pictures))
    placed = [
        re.sub(
            size, rf' x="{i % columns * width:g}" y="{i // columns * height:g}" width="\1" height="\2"', svg, count=1
        )
        for i, svg in enumerate(svg[svg.index("<svg") :] for svg in pictures)
    ]
    across, down = columns * width, -(-len(pictures) // columns) * height
    whole = f'width="{across:g}pt" height="{down:g}pt" viewBox="0 0 {across:g} {down:g}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {whole}>', *placed, "</svg>\n"])


def inline(svg: str) -> str:
    """A picture of `as_svg` for the inside of a page: its colours become the page's, so that dark mode has its own.

    The page defines --colour, --second and --grey; ink is the text's colour. Ids that nothing refers to go, since
    several pictures in one page would repeat them.
    """
    svg = re.sub(rf'<g id="{BACKGROUND}">.*?</g>', "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    colours = {INK: "currentColor", COLOUR: "var(--colour)", SECOND: "var(--second)", GREY: "var(--grey)"}
    for colour, variable in colours.items():
        svg = svg.replace(colour, variable)
    return svg
