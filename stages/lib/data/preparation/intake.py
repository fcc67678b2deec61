"""Whether a source was read as its author meant it: what was left unread, refused, or says the same again and again."""

from collections import Counter

from stages.lib.core.errors import UserError
from stages.lib.data.preparation.reading.records import Origin, Seen
from stages.lib.data.preparation.reading.sources import origin_of
from stages.lib.settings.data import Prepare

SHOWN = 3  # reasons of refused rows
SAME = 0.5  # share of a source's distinct records that may ask one and the same
FEW = 10  # distinct records below which nothing is said about that


def require_usable(
    sources: list[dict], rows: list[dict], seen: dict[str, Seen], prepare: Prepare
) -> dict[str, list[str]]:
    """What has to be said of each source; raises UserError where one was not read as it was meant."""
    by_source: dict[str, list[dict]] = {name: [] for name in seen}
    for row in rows:
        by_source[row["source"]].append(row)
    notes = {}
    for i, source in enumerate(sources):
        origin, own = origin_of(source, i), seen[source["name"]]
        _require_readable(origin, by_source[origin.name], own, prepare.malformed)
        _require_different_questions(origin, own)
        left_out = _require_kept_apart(origin, own, prepare.keep_system, prepare.malformed)
        notes[origin.name] = [line for line in (unread(origin, own), left_out) if line]
    return notes


def _require_readable(origin: Origin, rows: list[dict], seen: Seen, most: float) -> None:
    """Raise UserError where a source has no records, or more than `most`, a share, of its rows are malformed.

    `rows` are those of `cleaning.clean`. No test question may be malformed; a column of texts must hold some.
    """
    bad = [row for row in rows if row.get("reason") == "malformed"]
    if not rows:
        raise UserError(f"{origin.name}: no records in the file; check what it holds")
    if only := sorted(seen.numbers - seen.texts):
        raise UserError(f"{origin.name}: `{only[0]}` holds numbers only, expected text; {_hint(origin, seen)}")
    is_test = origin.records == "test_questions"
    if len(bad) > (0 if is_test else most * len(rows)):
        counts = Counter(row["detail"] for row in bad).most_common()
        first = {row["detail"]: where(row) for row in reversed(bad)}
        reasons = "; ".join(f"{count} x {detail} ({first[detail]})" for detail, count in counts[:SHOWN])
        more = f"; and {len(counts) - SHOWN} other reasons" if len(counts) > SHOWN else ""
        limit = (
            "a test set is used whole or not at all" if is_test else f"at most data.prepare.malformed={most:g} may be"
        )
        raise UserError(
            f"{origin.name}: {len(bad)} of {len(rows)} records cannot be read, and {limit}: {reasons}{more}; "
            f"{_hint(origin, seen)}"
        )


def _require_different_questions(origin: Origin, seen: Seen) -> None:
    """Raise UserError where most records of a source ask the same, as when the question is in an unread column."""
    asked = Counter(question for question, _, _ in seen.said)
    if len(seen.said) < FEW:
        return
    ((question, count),) = asked.most_common(1)
    if count > SAME * len(seen.said):
        raise UserError(
            f"{origin.name}: {count} of {len(seen.said)} different records ask the same question, that of record "
            f"{seen.first[question]}; {_hint(origin, seen)}"
        )


def _require_kept_apart(origin: Origin, seen: Seen, keep_system: bool, most: float) -> str:
    """How many system messages, and instructions beside an input, are left out, in a sentence; "" where none is.

    Raises UserError where more than `most`, a share, of the records ask the same as another one that only such a
    message tells apart.
    """
    different = len({system for _, system, _ in seen.said if system})
    if keep_system or not different:
        return ""
    sentence = (
        f"{different} different instructions or system messages are"
        if different > 1
        else ("one and the same instruction or system message is")
    )
    sentence += " left out"
    systems: dict[int, set[int]] = {}
    for question, system, _ in seen.said:
        systems.setdefault(question, set()).add(system)
    alike = [question for question, _, _ in seen.said if len(systems[question]) > 1]
    if alike:
        first = min(seen.first[question] for question in alike)
        sentence += f"; without them {len(alike)} records ask the same as another one, the first as record {first}"
    sentence += "; -S data.prepare.keep_system=true keeps them"
    if len(alike) > most * len(seen.said):
        raise UserError(f"{origin.name}: {sentence}")
    return sentence


def told(source: dict, notes: list[str]) -> list[str]:
    """What the log says of a source, whose part of the metrics this is: shapes, counts, drops by reason, and notes."""
    shapes = "; ".join(f"{shape} ({count})" for shape, count in source["shapes"].items())
    splits = ", ".join(f"{split} {count}" for split, count in source["splits"].items() if count)
    reasons = Counter[str]()
    for step in source["steps"].values():
        reasons.update({reason: count for reason, count in step.items() if reason not in ("in", "out")})
    dropped = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    counts = f"{source['read']} read, {source['kept']} kept ({splits}); dropped: {dropped or 'none'}"
    return [f"read as {shapes}", counts, *notes]


def unread(origin: Origin, seen: Seen) -> str:
    """The columns and message keys that nothing was read from, in a sentence, or ""."""
    parts = []
    if seen.unread:
        columns = ", ".join(f"`{name}` ({count})" for name, count in seen.unread.most_common())
        parts.append(f"columns {columns}; {origin.mapping('FIELD', 'COLUMN')} reads one")
    if seen.unread_in_messages:
        keys = ", ".join(f"`{name}` ({count})" for name, count in seen.unread_in_messages.most_common())
        parts.append(f"keys of messages {keys}")
    return f"not read: {'; '.join(parts)}" if parts else ""


def where(row: dict) -> str:
    """A row's place within its source."""
    return f"{row['file']}, record {row['row']}" if row.get("file") else f"record {row['row']}"


def _hint(origin: Origin, seen: Seen) -> str:
    """What a person can do about records that were not read as they were meant."""
    if not seen.unread:
        return (
            f"see how it is read with `python -m stages.lib.data.show FILE`; {origin.mapping('FIELD', 'COLUMN')} maps"
        )
    columns = ", ".join(f"`{name}`" for name, _ in seen.unread.most_common())
    fields = "input, output or messages" if origin.records == "dialogues" else "question, options or answer"
    return f"not read: {columns}; {origin.mapping('FIELD', 'COLUMN')} reads one, e.g. as {fields}"
