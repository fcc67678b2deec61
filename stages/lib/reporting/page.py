"""report.html: one file that opens offline."""

import itertools
from pathlib import Path

from stages.lib.figures import duration, heading, interval, size, value
from stages.lib.gguf_keys import DVC, PREFIX
from stages.lib.notes import NOT_A_DEVICE, NOTES, SYNTHETIC, TITLES
from stages.lib.results import Findings
from stages.lib.tables import Table
from stages.lib.templates import render

TEMPLATE = Path(__file__).with_name("page.html.jinja")
KEY_MEASURES = ("perplexity", "bleu", "exact_match", "letter_exact_match")
CONVERSATIONS = 10


def page(
    found: Findings,
    tiles: list[dict],
    judged: list[dict],
    pictures: dict[str, list[str]],
    talks: list[dict],
    funnel: dict,
    costs: dict[str, dict | None],
    lineage: dict[str, dict[str, str]],
) -> str:
    """The page's HTML: what results.md has, with pictures, conversations, data counts, cost and lineage."""
    return render(
        TEMPLATE,
        found=found,
        warning=SYNTHETIC if found.synthetic else "",
        titles=TITLES,
        notes=NOTES,
        pairs=_by_pair(found.tables["differences"]),
        tiles=tiles,
        judged=judged,
        pictures=pictures,
        talks=talks,
        funnel=funnel,
        costs=cost_rows(costs),
        total=_total(costs),
        machines=sorted({cost["machine"] for cost in costs.values() if cost}),
        lineage=lineage,
        notice=NOT_A_DEVICE,
    )


def key_figures(evaluations: dict[str, dict], quant: str, against_base: dict[str, dict]) -> list[dict]:
    """The tiles at the top: a measure of the tuned model, of its base and its quant type, and the paired verdict."""
    tuned = evaluations["tuned"]
    return [
        {
            "label": heading(key).replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓"),
            "tuned": value(key, tuned),
            "interval": interval(key, tuned).removeprefix(value(key, tuned)).strip(" ()"),
            "others": [(name, value(key, evaluations[name])) for name in ("base", quant)],
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


def cost_rows(costs: dict[str, dict | None]) -> list[dict]:
    """A row a stage: its time, its peak memory, and its share of the longest for the bar."""
    longest = max((cost["seconds"] for cost in costs.values() if cost), default=0) or 1
    return [
        {
            "stage": stage,
            "time": duration(cost["seconds"]) if cost else "not measured here",
            "memory": size(cost["peak_bytes"]) if cost else "",
            "part": round(100 * cost["seconds"] / longest, 1) if cost else 0,
        }
        for stage, cost in costs.items()
    ]


def lineage_rows(keys: dict[str, str], files: dict[str, tuple[int, str]]) -> dict[str, dict[str, str]]:
    """Where the GGUFs come from, in groups: what they are made of, what DVC tracks, the files.

    `keys` are a GGUF's own; `files` is name -> (bytes, SHA-256).
    """
    own = {key.removeprefix(PREFIX): text for key, text in keys.items() if not key.startswith(DVC)}
    return {
        "made of": {key: text for key, text in own.items() if key != "notice"},
        "in dvc.lock (MD5)": {key.removeprefix(DVC): text for key, text in keys.items() if key.startswith(DVC)},
        "GGUF files (SHA-256)": {name: f"{sha256} · {size(count)}" for name, (count, sha256) in files.items()},
    }


def _by_pair(differences: Table) -> dict[str, Table]:
    """A table for each comparison, without the column that names it."""
    rows = itertools.groupby(differences.rows, key=lambda row: row[0])
    return {pair: Table(differences.header[1:], [row[1:] for row in some]) for pair, some in rows}


def _total(costs: dict[str, dict | None]) -> str:
    measured = [cost["seconds"] for cost in costs.values() if cost]
    return f"{duration(sum(measured))} in {len(measured)} of {len(costs)} stages" if measured else ""
