"""Exam questions in the shapes that people have them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from stages.lib.core.errors import UserError
from stages.lib.data.preparation.reading.answers import Reading, first_option, readings, right_letter
from stages.lib.data.preparation.reading.columns import QUESTION, Layout, filled, layout, plain, require_text_only
from stages.lib.data.preparation.reading.defects import Defect, readable
from stages.lib.data.preparation.reading.options import YES_NO_MAYBE, Options, columns_of_options, read_options
from stages.lib.data.preparation.reading.records import SHOWN, Malformed, Origin, Place, Question, Seen
from stages.lib.data.preparation.reading.values import is_missing, unpacked

NESTED = ("data", "doc")  # columns in which openlifescienceai's files and lm-eval's log have the question
Numbered = Iterator[tuple[Place, dict | Defect]]


@dataclass(frozen=True)
class Asked:
    """A question whose right option may still depend on where the file's numbers begin."""

    place: Place
    question: str
    options: Options
    answers: dict[str, Reading]  # column -> what it may say
    meta_info: str
    shape: str


def read_questions(rows: Numbered, origin: Origin, seen: Seen) -> Iterator[Question | Malformed]:
    """Yield each row's question with two to five options.

    Answers are letters, the option's text, or its number. Raises UserError where numbers may count from 0 or from 1
    and nothing tells which.
    """
    mapped = tuple(origin.columns.items())
    read: list[Asked | Malformed] = []
    for place, row in rows:
        try:
            read.append(_asked(place, _unnested(readable(row), mapped, seen), mapped, seen))
        except ValueError as error:
            read.append(Malformed(place, str(error), SHOWN.repr(row)))
    first, untold = origin.first_option, ""
    if first is None:
        first, untold = first_option((one.options, one.answers) for one in read if isinstance(one, Asked))
    if untold:
        raise UserError(f"{origin.name}: {untold}; say it with `-S {origin.key}.first_option=0`, or `=1`")
    for one in read:
        if isinstance(one, Malformed):
            yield one
        else:
            own = one.options.first if origin.first_option is None else None
            yield _question(one, first if own is None else own, seen)


def _question(asked: Asked, first: int | None, seen: Seen) -> Question | Malformed:
    """The question with its right option, numbers counted from `first`."""
    try:
        right = right_letter(asked.options, asked.answers, first)
    except ValueError as error:
        return Malformed(asked.place, str(error), SHOWN.repr(asked.question))
    options = asked.options.texts
    numbered = first is not None and any(answer.number is not None for answer in asked.answers.values())
    seen.shapes[asked.shape + (f" counted from {first}" if numbered else "")] += 1
    seen.add(asked.place.row, asked.question, "", "\n".join([*options.values(), right]))
    return Question(asked.place, asked.question, options, right, asked.meta_info)


def _unnested(row: dict, mapped: tuple, seen: Seen) -> dict:
    """The object with the question, where a row holds it in a column of its own."""
    if "question" not in layout(*filled(row), QUESTION, mapped).of:
        for inner in nested(row):
            if "question" in layout(*filled(inner), QUESTION, mapped).of:
                seen.unread.update(key for key in filled(row)[0] if row[key] is not inner)
                return inner
    return row


def nested(row: dict) -> list[dict]:
    """The objects of a row in which the question may be."""
    return [row[name] for name in NESTED if isinstance(row.get(name), dict)]


def _asked(place: Place, row: dict, mapped: tuple, seen: Seen) -> Asked:
    """What a row asks; raises ValueError with what is wrong."""
    found = layout(*filled(row), QUESTION, mapped)
    of = found.of
    named = {} if "options" in of else columns_of_options(found.unread)
    seen.unread.update(key for key in found.unread if key not in named.values())
    seen.mapped.update(field for field, _ in mapped if field in of)
    require_text_only(found.unread)
    question = _question_text(row, found, seen)
    answer_keys = {field: of[field] for field in ("answer_idx", "answer") if field in of}
    if "options" in of:
        key = of["options"]
        options, shape = read_options(unpacked(row[key], key), key, seen), f"options in `{key}`"
    elif named:
        options = read_options({name: row[key] for name, key in named.items()}, next(iter(named.values())), seen)
        if plain(next(iter(named.values()))) != "ending0":  # the names of other columns say nothing of the answer's
            options = replace(options, first=None)
        shape = f"options in {', '.join(f'`{key}`' for key in named.values())}"
    elif plain(of.get("answer", "")) == "final_decision":
        options, shape = Options(YES_NO_MAYBE), "options yes, no, maybe"
    else:
        raise ValueError("`options` is missing, expected two to five options")
    if not answer_keys:
        raise ValueError("`answer_idx` is missing, expected the right option's letter, number or text")
    answers = {
        key: readings(row[key], key, options, seen, by_position=field == "answer_idx")
        for field, key in answer_keys.items()
    }
    meta_info = seen.text(row[of["meta_info"]], of["meta_info"], may_be_number=True) if "meta_info" in of else None
    shape += f", answer in {', '.join(f'`{key}`' for key in answer_keys.values())}"
    return Asked(place, question, options, answers, meta_info or "", shape)


def _question_text(row: dict, found: Layout, seen: Seen) -> str:
    """The question below what it is asked about; raises ValueError where it is missing or blank."""
    of = found.of
    question = seen.text(row[of["question"]], of["question"]) if "question" in of else None
    if question is None:
        raise ValueError("`question` is missing, expected text")
    if not question.strip():
        raise ValueError(f"`{of['question']}` is empty, expected text")
    if "rest" in of:
        question = f"{question} {seen.text(row[of['rest']], of['rest'])}"
    if "context" in of:
        question = f"{_context(row[of['context']], of['context'], seen)}\n\n{question}"
    return question


def _context(value: object, name: str, seen: Seen) -> str:
    """A text, a list of texts, or PubMedQA's object of them; raises ValueError for anything else."""
    inner = value = unpacked(value, name)
    if isinstance(value, dict):
        key = next((key for key in value if plain(key) == "contexts"), None)
        seen.unread.update(f"{name}.{other}" for other in value if other != key and not is_missing(value[other]))
        inner = value.get(key)
    texts = [seen.text(text, name) for text in (inner if isinstance(inner, list) else [inner])]
    if None in texts:
        raise ValueError(f"`{name}` is {SHOWN.repr(value)}, expected text or a list of texts")
    return "\n".join(text for text in texts if text)
