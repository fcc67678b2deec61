"""Pictures as SVG text; the same figures always give the same bytes."""

import io
import re

import matplotlib
from cycler import cycler

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "llama3-chatdoctor"  # else element ids are random
matplotlib.rcParams["svg.fonttype"] = "none"
import matplotlib.pyplot as plt  # noqa: E402 — after the backend is chosen
from matplotlib.figure import Figure  # noqa: E402

INK, COLOUR, SECOND, GREY = "#000000", "#2f7d6b", "#c0622d", "#777777"
matplotlib.rcParams["axes.prop_cycle"] = cycler(color=(COLOUR, SECOND, GREY))
BACKGROUND = "background"  # the id of the white rectangle behind a picture


def as_svg(figure: Figure) -> str:
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
