"""Whether a source was read as its author meant it: what was left unread, refused, or says the same again and again."""

from collections import Counter

from stages.lib.core.errors import UserError
from stages.lib.data.preparation.reading.records import Origin, Seen
from stages.lib.settings.data import Prepare

SHOWN = 3  # reasons of refused rows
NAMES = 20  # unread columns that are listed
SAME = 0.5  # share of a source's distinct records that may ask one and the same
FEW = 10  # distinct records below which nothing is said about that


def require_usable(origin: Origin, rows: list[dict], seen: Seen, prepare: Prepare) -> list[str]:
    """What has to be said of a source, whose `rows` are those of `cleaning.clean`.

    Raises UserError where it was not read as it was meant.
    """
    _require_readable(origin, rows, seen, prepare.malformed)
    _require_different_questions(origin, seen)
    left_out = _require_kept_apart(origin, seen, prepare.keep_system, prepare.malformed)
    return [line for line in (_unread(origin, seen), left_out) if line]


def _require_readable(origin: Origin, rows: list[dict], seen: Seen, most: float) -> None:
    """Raise UserError where a source has no records, or more than `most`, a share, of its rows are malformed.

    `rows` are those of `cleaning.clean`. No test question may be malformed; a column of texts must hold some.
    """
    bad = [row for row in rows if row.get("reason") == "malformed"]
    if not rows:
        raise UserError(f"{origin.name}: no records in the file; check what it holds")
    if lost := sorted(origin.columns.keys() - seen.mapped):
        column = origin.columns[lost[0]]
        raise UserError(
            f"{origin.name}: columns maps {lost[0]} to `{column}`, which no record has; {_hint(origin, seen)}"
        )
    if only := sorted(seen.numbers - seen.texts):
        raise UserError(f"{origin.name}: `{only[0]}` holds numbers only, expected text; {_hint(origin, seen)}")
    is_test = origin.records == "test_questions"
    if len(bad) > (0 if is_test else most * len(rows)):
        reasons = refusals(bad)
        main = "; ".join(reasons[:SHOWN])
        more = f"; and {len(reasons) - SHOWN} other reasons" if len(reasons) > SHOWN else ""
        share = f"at most data.prepare.malformed={most:g} may be"
        limit = "a test set is used whole or not at all" if is_test else share
        raise UserError(
            f"{origin.name}: {len(bad)} of {len(rows)} records cannot be read, and {limit}: {main}{more}; "
            f"{_hint(origin, seen)}"
        )


def refusals(malformed: list[dict]) -> list[str]:
    """Each reason for which rows are malformed, the most frequent first, with their count and the first one's place."""
    first = {row["detail"]: where(row) for row in reversed(malformed)}
    counts = Counter(row["detail"] for row in malformed).most_common()
    return [f"{count} x {detail} ({first[detail]})" for detail, count in counts]


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
    some, are = (f"{different} different", "messages are") if different > 1 else ("one and the same", "message is")
    sentence = f"{some} instruction{'s' * (different > 1)} or system {are} left out"
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
    untrained = source["changed"].get("answers_not_trained", 0)
    masked = [f"{untrained} answers are not trained, as their messages say"] if untrained else []
    return [f"read as {shapes}", counts, *masked, *notes]


def _unread(origin: Origin, seen: Seen) -> str:
    """The columns and message keys that nothing was read from, in a sentence, or ""."""
    parts = []
    if seen.unread:
        parts.append(f"columns {_listed(seen.unread)}; {origin.mapping('FIELD', 'COLUMN')} reads one")
    if seen.unread_in_messages:
        parts.append(f"of messages {_listed(seen.unread_in_messages)}")
    return f"not read: {'; '.join(parts)}" if parts else ""


def where(row: dict) -> str:
    """A row's place within its source."""
    return f"{row['file']}, record {row['row']}" if row.get("file") else f"record {row['row']}"


def _listed(names: Counter[str]) -> str:
    """The most frequent names with their counts."""
    more = f" and {len(names) - NAMES} others" if len(names) > NAMES else ""
    return ", ".join(f"`{name}` ({count})" for name, count in names.most_common(NAMES)) + more


def _hint(origin: Origin, seen: Seen) -> str:
    """What a person can do about records that were not read as they were meant."""
    if not seen.unread:
        return "see how it is read with `python -m stages.lib.data.show FILE`"
    fields = "input, output or messages" if origin.records == "dialogues" else "question, options or answer"
    return f"not read: {_listed(seen.unread)}; {origin.mapping('FIELD', 'COLUMN')} reads one, e.g. as {fields}"
