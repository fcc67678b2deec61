"""prepare: clean, de-duplicate, decontaminate and split the raw records into dialogues."""

import logging
from collections import Counter
from functools import partial
from itertools import chain
from pathlib import Path
from typing import cast

from tqdm import tqdm

from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, replacing, write_json, write_jsonl, write_text
from stages.lib.core.stage import run
from stages.lib.data.preparation.boilerplate import require_known
from stages.lib.data.preparation.card import dataset_card
from stages.lib.data.preparation.charts import draw_funnel, draw_lengths
from stages.lib.data.preparation.cleaning import clean_chunk
from stages.lib.data.preparation.decontaminate import OVERLAP_WORDS
from stages.lib.data.preparation.intake import require_usable, told, where
from stages.lib.data.preparation.ngrams import Hashes, join
from stages.lib.data.preparation.parallel import CHUNK, in_chunks
from stages.lib.data.preparation.reading.records import Seen
from stages.lib.data.preparation.reading.sources import origin_of, read_source
from stages.lib.data.preparation.repetitions import repetitions
from stages.lib.data.preparation.selection import overlap, selected
from stages.lib.data.preparation.statistics import statistics
from stages.lib.settings.data import Prepare


def main(prepare: Prepare, raw: Path, prepared: Path, metrics_file: Path, plots: Path, card: Path) -> None:
    """Write train, validation and test dialogues, MedQA's test questions, and every dropped record with its reason."""
    require_known(prepare.boilerplate)
    sources = cast(list[dict], read_json(raw / "sources.json"))
    seen = {source["name"]: Seen() for source in sources}
    rows, hashes = _cleaned(raw, sources, seen, prepare)
    notes = _notes(sources, rows, seen, prepare)
    steps, splits = selected(rows, hashes, {source["name"]: source["records"] for source in sources}, prepare)
    _refuse_gaps(rows, steps, splits)
    with replacing(prepared) as folder:
        for split, kept in splits.items():
            write_jsonl(folder / f"{split}.jsonl", (_published(rows[i], split) for i in kept))
        drops = sorted((i, step, drop) for step, dropped in steps.items() for i, drop in dropped.items())
        write_jsonl(folder / "dropped.jsonl", (_dropped(rows[i], step, drop) for i, step, drop in drops))
    measured: dict = {"overlap_words": OVERLAP_WORDS, "overlap": overlap(hashes, splits)}
    measured["test_questions"] = repetitions([rows[i] for i in splits["medqa_test"]])
    metrics = statistics(rows, sources, seen, steps, splits) | measured
    write_json(metrics_file, metrics)
    write_text(plots / "funnel.svg", draw_funnel(metrics))
    write_text(plots / "lengths.svg", draw_lengths([rows[i] for split in splits.values() for i in split]))
    write_text(card, dataset_card(sources, prepare, metrics))
    for name, source in metrics["sources"].items():
        for line in told(source, notes[name]):
            logging.info("%s: %s", name, line)


def _cleaned(raw: Path, sources: list[dict], seen: dict[str, Seen], prepare: Prepare) -> tuple[list[dict], Hashes]:
    """All records of all sources through steps 1 to 3, and the words of their texts; `seen` is filled on the way."""
    records = chain.from_iterable(
        read_source(raw / source["file"], origin_of(source, i), seen[source["name"]])
        for i, source in enumerate(sources)
    )
    rows: list[dict] = []
    hashes: list[Hashes] = []
    chunks = in_chunks(partial(clean_chunk, prepare=prepare), records)
    for some, their_hashes in tqdm(chunks, desc="cleaning", unit=f" x {CHUNK} records"):
        rows += some
        hashes.append(their_hashes)
    return rows, join(hashes)


def _notes(sources: list[dict], rows: list[dict], seen: dict[str, Seen], prepare: Prepare) -> dict[str, list[str]]:
    """What has to be said of each source; raises UserError where one was not read as it was meant."""
    by_source: dict[str, list[dict]] = {name: [] for name in seen}
    for row in rows:
        by_source[row["source"]].append(row)
    origins = [origin_of(source, i) for i, source in enumerate(sources)]
    return {one.name: require_usable(one, by_source[one.name], seen[one.name], prepare) for one in origins}


def _published(row: dict, split: str) -> dict:
    """What a row is outside: a test question without its answer among the messages, but beside them."""
    common = {"id": row["id"][:16]} | _place(row)
    if split != "medqa_test":
        return common | {"messages": row["messages"]}
    asked = {key: row[key] for key in ("question", "options", "answer_idx", "meta_info")}
    return common | {"messages": row["messages"][:1]} | asked


def _dropped(row: dict, step: str, drop: dict) -> dict:
    """A row of dropped.jsonl: where the record came from, which step dropped it and why."""
    return _place(row) | {"step": step, **drop, "messages": row["messages"]}


def _place(row: dict) -> dict:
    """Where a row came from: source, file where the source has several, and number in it."""
    return {key: row[key] for key in ("source", "file", "row") if key in row}


def _refuse_gaps(rows: list[dict], steps: dict[str, dict[int, dict]], splits: dict[str, list[int]]) -> None:
    """Raise UserError for a test question that cannot be asked, or an empty split."""
    for row in (rows[i] for i in splits["medqa_test"]):
        if "reason" in row:
            raise UserError(
                f"{row['source']}, {where(row)}: {row['reason']}; a test set is used whole or not at all: fix the file"
            )
    for split, kept in splits.items():
        if not kept:
            reasons = Counter(drop["reason"] for dropped in steps.values() for drop in dropped.values())
            raise UserError(
                f"{split}.jsonl would be empty: {len(rows)} records were read, dropped were {dict(reasons)}"
            )


if __name__ == "__main__":
    run(
        main,
        sections=("data.prepare",),
        paths=(paths.RAW, paths.PREPARED, paths.METRICS / "data.json", paths.PLOTS / "data", paths.CARD),
    )
