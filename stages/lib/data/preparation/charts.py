"""Pictures of the data: where rows went, how long they are."""

import matplotlib.pyplot as plt
import numpy as np

from stages.lib.data.preparation.statistics import lengths_of
from stages.lib.rendering.svg import GREY, as_svg

NAMES = {
    "read": "readable",
    "quality": "good enough",
    "exact_duplicates": "no exact duplicate",
    "near_duplicates": "no near-duplicate",
    "decontaminate": "not in a test",
    "train_questions": "within the share",
}


def draw_funnel(metrics: dict) -> str:
    """Rows left after each step, stacked by source, as SVG."""
    sources = {name: s for name, s in metrics["sources"].items() if s["records"] != "test_questions"}
    labels = ["read", *(NAMES[step] for step in next(iter(sources.values()))["steps"])]
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    left = np.zeros(len(labels), int)
    for name, source in sources.items():
        counts = np.array([source["read"], *(step["out"] for step in source["steps"].values())])
        axes.barh(labels, counts, left=left, label=name, height=0.7)
        left += counts
    for y, count in enumerate(left):
        lost = f"  −{left[y - 1] - count:,}" if y and left[y - 1] > count else ""
        axes.annotate(f"{count:,}{lost}", (count, y), xytext=(4, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlabel("rows")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=len(sources))
    return as_svg(figure)


def draw_lengths(rows: list[dict]) -> str:
    """Histograms of the words of questions and answers, one line a source, as SVG."""
    by_source: dict[str, list] = {}
    for row in rows:
        by_source.setdefault(row["source"], []).append(row)
    figure, both = plt.subplots(1, 2, figsize=(9.6, 3.2), sharey=True)
    for axes, role, label in zip(both, ("user", "assistant"), ("question", "answer"), strict=True):
        counts = {name: lengths_of(some, role) for name, some in by_source.items()}
        longest = max(2, *(c.max() for c in counts.values()))
        edges = np.unique(np.geomspace(1, longest + 1, 30).round()) - 0.5  # each bin holds a whole number of words
        for name, words in counts.items():
            axes.hist(words, edges, histtype="step", label=name, weights=np.full(len(words), 100 / len(words)))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(f"words of a {label}" if label == "question" else f"words of an {label}")
        axes.grid(axis="y", color=GREY, alpha=0.2)
    both[0].set_ylabel("share of the source (%)")
    both[1].legend(frameon=False)
    return as_svg(figure)
