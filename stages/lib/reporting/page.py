"""report.html: one file that opens offline."""

import itertools
from pathlib import Path

from stages.lib.core.paths import COST
from stages.lib.evaluation.metrics.comparison import pair
from stages.lib.rendering.svg import inline
from stages.lib.rendering.templates import render
from stages.lib.reporting.findings import Findings
from stages.lib.reporting.formatting import heading, interval, value
from stages.lib.reporting.lineage import lineage_groups
from stages.lib.reporting.notes import NOT_A_DEVICE, SYNTHETIC, TITLES
from stages.lib.reporting.results import Results
from stages.lib.reporting.tables import Table
from stages.lib.settings.model_names import BASE, TUNED

TEMPLATE = Path(__file__).with_name("page.html.jinja")
KEY_MEASURES = ("perplexity", "bleu", "accuracy", "letter_accuracy")
CONVERSATIONS = 10


def page(
    findings: Findings,
    results: Results,
    quant: str,
    pictures: dict[str, list[str]],
    conf_digest: str,
    stages: list[str],
) -> str:
    """The page's HTML: what results.md has, with pictures, conversations, data counts, cost and lineage.

    `quant` is the quant type that is shown where there is no room for all; `pictures` are SVGs by name. What the
    `stages` took on this machine is not in the page: it loads their files below `.cost/` where they are.
    """
    return render(
        TEMPLATE,
        findings=findings,
        warning=SYNTHETIC if findings.synthetic else "",
        titles=TITLES,
        notes=findings.notes,
        pairs=_by_pair(findings.tables["differences"]),
        tiles=key_figures(results.scores, quant, findings.comparisons[pair(BASE, TUNED)]),
        pictures={name: [inline(svg) for svg in panels] for name, panels in pictures.items()},
        conversations=conversations({name: results.predictions[name] for name in (BASE, TUNED, quant)}),
        data=results.data,
        cost=COST.as_posix(),
        stages=stages,
        lineage={"settings": {"conf_digest": conf_digest}} | lineage_groups(results.verifications),
        notice=NOT_A_DEVICE,
    )


def key_figures(scores: dict[str, dict], quant: str, against_base: dict[str, dict]) -> list[dict]:
    """The tiles at the top: a measure of the tuned model, of its base and its quant type, and the paired verdict."""
    tuned = scores[TUNED]
    return [
        {
            "label": heading(key).replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓"),
            "tuned": value(key, tuned),
            "interval": interval(key, tuned).removeprefix(value(key, tuned)).strip(" ()"),
            "others": [(name, value(key, scores[name])) for name in (BASE, quant)],
            "verdict": against_base.get(key, {}).get("verdict", ""),
        }
        for key in KEY_MEASURES
    ]


def conversations(predictions: dict[str, list[dict]]) -> list[dict]:
    """The first dialogues, each with the reference and every model's answer to the same question."""
    columns = [[row for row in rows if row["kind"] == "dialogue"][:CONVERSATIONS] for rows in predictions.values()]
    return [
        {
            "question": rows[0]["question"],
            "reference": rows[0]["reference"],
            "answers": list(zip(predictions, rows, strict=True)),
        }
        for rows in zip(*columns, strict=True)
    ]


def _by_pair(differences: Table) -> dict[str, Table]:
    """A table for each comparison, without the column that names it."""
    rows = itertools.groupby(differences.rows, key=lambda row: row[0])
    return {pair: Table(differences.header[1:], [row[1:] for row in some]) for pair, some in rows}
