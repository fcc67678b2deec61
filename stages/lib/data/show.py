"""Print records readably: those of any file of dialogues or exam questions before a run, or of data/prepared/ after it.

    python -m stages.lib.data.show mine.csv
    python -m stages.lib.data.show mine.csv --columns output=answer_icliniq
    python -m stages.lib.data.show data/prepared/train.jsonl --n 10

Of a file of one's own: how it is read, which columns are not, which records are refused and why, and the first ones as
`prepare` would clean them with the settings of params.yaml. What is trained on, an assistant's text and the end of its
turn, is green and has a bar at its left. Colours are left out where the output is no terminal, or NO_COLOR is set.
"""

import argparse
import os
import shutil
import sys
import textwrap
from itertools import islice
from pathlib import Path

from stages.lib.core import params
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_jsonl
from stages.lib.data.preparation.cleaning import clean
from stages.lib.data.preparation.intake import refusals, require_usable
from stages.lib.data.preparation.reading.records import Malformed, Origin, Seen
from stages.lib.data.preparation.reading.sources import kind_of, read_source
from stages.lib.settings.data import FIELDS, RECORDS, Prepare

GREEN, BOLD, DIM, RESET = "\033[32m", "\033[1m", "\033[2m", "\033[0m"
KEYS = ("reason", "detail", "duplicate_of", "shared", "answer_idx")
PREPARED = {"source", "row", "messages"}  # keys of every record of data/prepared/
QUESTIONS_ONLY = set(FIELDS["train_questions"]) - set(FIELDS["dialogues"])
REASONS = 10  # of refused records that are printed


def shown(record: dict, width: int, colour: bool) -> str:
    """One record as text, its messages in at most `width` columns."""

    def styled(style: str, text: str) -> str:
        return f"{style}{text}{RESET}" if colour else text

    place = [record.get("id", "")[:16], record["source"], record.get("file", ""), f"row {record['row']}"]
    lines = [styled(BOLD, f"── {' '.join(filter(None, place))}")]
    lines += [styled(DIM, f"{key}: {record[key]}") for key in KEYS if key in record]
    if record.get("changes"):
        lines.append(styled(DIM, f"changed: {', '.join(record['changes'])}"))
    for message in record["messages"]:
        trained = message["role"] == "assistant" and "reason" not in record and message.get("train", True)
        lines.append(styled(DIM, message["role"] + ("" if message.get("train", True) else ", not trained")))
        text = message["content"] + (" ■" if trained else "")
        bar = "┃ " if trained else "  "
        for line in text.splitlines():
            for piece in textwrap.wrap(line, max(20, width - len(bar))) or [""]:
                lines.append(styled(GREEN, bar + piece) if trained else bar + piece)
    return "\n".join(lines)


def preview(path: Path, columns: dict[str, str], first_option: int | None, n: int) -> tuple[list[str], list[dict]]:
    """How a file is read, in lines, and its first `n` records as `prepare` would clean them.

    Raises UserError where it cannot be read at all.
    """
    kind = "train_questions" if columns.keys() & QUESTIONS_ONLY else kind_of(path)
    if unknown := sorted(columns.keys() - set(FIELDS[kind])):
        raise UserError(f"--columns: {unknown[0]} is none of {', '.join(FIELDS[kind])}, the fields of {kind}")
    seen = Seen()
    origin = Origin(path.name, kind, f"data.sources.{RECORDS.index(kind)}", columns, first_option)
    records = list(read_source(path, origin, seen))
    prepare = params.load("data.prepare", Prepare)
    refused = [clean(record, prepare) for record in records if isinstance(record, Malformed)]
    shapes = "; ".join(f"{shape} ({count})" for shape, count in seen.shapes.most_common())
    lines = [
        f"{path}: {len(records)} {kind.removeprefix('train_')}, read as {shapes or 'nothing'}; {len(refused)} refused"
    ]
    lines += [f"  {reason}" for reason in refusals(refused)[:REASONS]]
    readable = [record for record in records if not isinstance(record, Malformed)]
    try:
        lines += require_usable(origin, refused + [{}] * len(readable), seen, prepare)
    except UserError as error:
        lines.append(f"prepare would stop: {error}")
    return lines, [clean(record, prepare) for record in readable[:n]]


def main(arguments: list[str]) -> None:
    """Print the first records of a file; raises UserError where it cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m stages.lib.data.show", description="Print records readably.")
    parser.add_argument("file", type=Path, help="any file of records, or a folder of them")
    parser.add_argument("--n", type=int, default=5, help="how many records")
    parser.add_argument("--columns", nargs="+", default=[], metavar="OURS=THEIRS", help="columns of other names")
    parser.add_argument("--first-option", type=int, choices=(0, 1), help="the number that answers mean option A by")
    given = parser.parse_args(arguments)
    if not given.file.exists():
        raise UserError(f"{given.file}: no such file; name one of your own, or of data/prepared/ after `dvc repro`")
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    records = _prepared(given.file, given.n)
    if records is None:
        columns = dict(pair.partition("=")[::2] for pair in given.columns)
        lines, records = preview(given.file, columns, given.first_option, max(0, given.n))
        print("\n".join(lines), end="\n\n")
    for record in records:
        print(shown(record, shutil.get_terminal_size().columns, colour), end="\n\n")


def _prepared(path: Path, n: int) -> list[dict] | None:
    """The first records of a file of data/prepared/; None for any other file."""
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    try:
        records = [record for _, record in islice(read_jsonl(path), max(1, n))]
    except UserError:
        return None
    return records[:n] if all(set(record) >= PREPARED for record in records) else None


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"show: {error}")
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
