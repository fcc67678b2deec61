"""The records of a source: every file of it, in order, as dialogues or questions."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from stages.lib.data.preparation.reading.columns import holds_options
from stages.lib.data.preparation.reading.defects import Defect
from stages.lib.data.preparation.reading.dialogues import read_dialogues
from stages.lib.data.preparation.reading.files import read_rows
from stages.lib.data.preparation.reading.questions import nested, read_questions
from stages.lib.data.preparation.reading.records import Dialogue, Malformed, Origin, Place, Question, Seen

LOOKED_AT = 100  # rows by which dialogues and questions are told apart


def read_source(path: Path, origin: Origin, seen: Seen) -> Iterator[Dialogue | Question | Malformed]:
    """Yield the records of a file, or of each file of a folder by its name; `seen` is filled on the way.

    Raises UserError as `read_rows` and `read_questions` do.
    """
    read = read_dialogues if origin.records == "dialogues" else read_questions
    return read(_rows(path, origin.name), origin, seen)


def kind_of(path: Path) -> str:
    """What a file's first rows are: dialogues, or exam questions, as `train_questions`."""
    for _, row in islice(_rows(path, ""), LOOKED_AT):
        if isinstance(row, dict) and any(holds_options(tuple(held)) for held in (row, *nested(row))):
            return "train_questions"
    return "dialogues"


def origin_of(source: dict, index: int) -> Origin:
    """A source of data/raw/sources.json, which params.yaml has at that index, as a reader needs it."""
    return Origin(source["name"], source["records"], f"data.sources.{index}", source["columns"], source["first_option"])


def _rows(path: Path, source: str) -> Iterator[tuple[Place, dict | Defect]]:
    if path.is_dir():
        for file in sorted(path.iterdir()):
            yield from ((Place(source, number, file.name), row) for number, row in read_rows(file))
    else:
        yield from ((Place(source, number), row) for number, row in read_rows(path))
