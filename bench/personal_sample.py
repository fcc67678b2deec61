"""300 sentences of real dialogues and exam questions, drawn by a seed, and what is personal data in each.

`personal_labels.jsonl` holds where each sentence stands, its SHA-256 and the spans that were labelled by hand, never a
text; the sentences are read from the shared files anew.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, read_jsonl
from stages.lib.data.preparation.personal import Span

SHARED = Path("../shared/data")
FIELDS = {
    "chatdoctor_4k.json": ("instruction", "input", "output"),
    "medqa_train.jsonl": ("question",),
    "medqa_test.jsonl": ("question",),
}
LABELS = Path("bench/personal_labels.jsonl")
SEED = 20
DRAWN = 150  # sentences of each half
# A line or what ends with a stop before a space; "Dr. Smith" and "J. Smith" are not cut.
SENTENCE = re.compile(r"\S(?:[^\n]*?[.!?](?<!\b[A-Z]\.)(?<!\b[DMS][rst]\.)(?<!\bMrs\.)(?=\s|\Z)|[^\n]*)")
# What a sentence with personal data may show. A sentence counts for the first it shows; each is drawn from in turn.
SIGNS = (
    r"@|www|http|\w\.(?:com|org|net|in|info)\b",
    r"\b(?:Dr|Mr|Mrs|Ms|Miss|Mister|Prof|Professor|St)\b|[Dd]octor [A-Z]",
    r"(?i:\b(?:name|named|myself|dear|regards|sincerely|thanks|thank|phone|mobile|mail|email|website)\b)",
    r"\d{4}|\d+(?:[^\w.]+\d+){2}",
    r"\b(?:Patient|Doctor) ?:|\b(?:I am|I'm|[Tt]his is|[Cc]alled) [A-Z]",
    r"[a-z,] [A-Z][a-z]+",
)


class Sentence(NamedTuple):
    """A sentence and where it stands: a file, its row from 1, a field, and the characters in it."""

    file: str
    row: int
    field: str
    start: int
    end: int
    text: str

    def key(self) -> dict[str, str | int]:
        """What the labels say of it: all but the text, and its SHA-256."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        return {key: value for key, value in self._asdict().items() if key != "text"} | {"sha256": digest}


def labelled() -> list[tuple[Sentence, list[Span]]]:
    """The drawn sentences, each with the spans labelled in it.

    Raises UserError where the shared files are missing or hold other sentences than were labelled.
    """
    sentences = draw()
    rows = [row for _, row in read_jsonl(LABELS)]
    keys = [{key: value for key, value in row.items() if key != "spans"} for row in rows]
    if keys != [sentence.key() for sentence in sentences]:
        raise UserError(
            f"{SHARED}: the {len(sentences)} sentences drawn are not the {len(rows)} of {LABELS}: another copy of the "
            "files, or another draw; labels fit only what they were made for"
        )
    return [(sentence, [tuple(span) for span in row["spans"]]) for sentence, row in zip(sentences, rows, strict=True)]


def draw() -> list[Sentence]:
    """Half drawn from all distinct sentences alike, half in turn from those with one of SIGNS each."""
    sentences = list({sentence.text: sentence for sentence in _sentences()}.values())
    generator = random.Random(SEED)
    generator.shuffle(sentences)
    alike, others = sentences[:DRAWN], sentences[DRAWN:]
    kinds: list[list[Sentence]] = [[] for _ in SIGNS]
    for sentence in others:
        if (kind := next((i for i, sign in enumerate(SIGNS) if re.search(sign, sentence.text)), None)) is not None:
            kinds[kind].append(sentence)
    likely: list[Sentence] = []
    while len(likely) < DRAWN:
        likely += [kind.pop() for kind in kinds if kind]
    return alike + likely[:DRAWN]


def _sentences() -> Iterator[Sentence]:
    for name, fields in FIELDS.items():
        path = SHARED / name
        if not path.exists():
            raise UserError(
                f"{path}: missing; the labelled sentences are read from it (the project does not hold them)"
            )
        rows = enumerate(read_json(path), 1) if path.suffix == ".json" else read_jsonl(path)
        for number, row in rows:
            for field in fields:
                for found in SENTENCE.finditer(row[field]):
                    yield Sentence(name, number, field, *found.span(), found[0])
