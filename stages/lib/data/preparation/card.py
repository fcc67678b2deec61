"""data/CARD.md: the data set's card in the format of the Hugging Face Hub."""

from pathlib import Path

from stages.lib.rendering.templates import render
from stages.lib.settings.data import Prepare

TEMPLATE = Path(__file__).with_name("card.md.jinja")
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(sources: list[dict], prepare: Prepare, metrics: dict) -> str:
    """The card's Markdown: sources with revision, hash and licence, steps, numbers, limits.

    Format: https://huggingface.co/docs/hub/datasets-cards.
    """
    rows = metrics["kept"]
    return render(
        TEMPLATE,
        sources=sources,
        prepare=prepare,
        metrics=metrics,
        size=next((name for most, name in SIZES if rows < most), "1M<n<10M"),
        masked=_total(metrics, "masked_"),
        normalised=_total(metrics, "normalised_"),
        boilerplate=_total(metrics, "boilerplate_"),
    )


def _total(metrics: dict, prefix: str) -> dict[str, int]:
    """Changes of one kind over all sources, the most frequent first."""
    total: dict[str, int] = {}
    for source in metrics["sources"].values():
        for name, count in source["changed"].items():
            if name.startswith(prefix):
                total[name.removeprefix(prefix)] = total.get(name.removeprefix(prefix), 0) + count
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
