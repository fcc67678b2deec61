"""The options of an exam question: an object, a list, key and value pairs, or columns of one option each."""

import re
from dataclasses import dataclass

from stages.lib.data.medqa import OPTION_LETTERS
from stages.lib.data.preparation.reading.columns import LETTERED_OPTION, NUMBERED_OPTION, plain
from stages.lib.data.preparation.reading.records import SHOWN, Seen
from stages.lib.data.preparation.reading.values import is_missing

SHORT = re.compile(r"^(option|choice|op)(?=[\s_]*\w)|[\s_().:\[\]]", re.IGNORECASE)  # around an option's letter
OWN_LETTER = re.compile(r"\s*[(\[]?([A-E])[)\].:]+\s+(?=\S)")  # in front of an option's text
# Keys of an option's name and text.
NAMES = (("key", "value"), ("label", "text"), ("key", "text"), ("label", "value"), ("id", "text"))
YES_NO_MAYBE = {"A": "yes", "B": "no", "C": "maybe"}  # PubMedQA's, in its own order


@dataclass(frozen=True)
class Options:
    """Two to five options by their letters A, B, ... in order."""

    texts: dict[str, str]
    first: int | None = None  # the number of the first one, where the file numbers its options itself


def columns_of_options(keys: tuple[str, ...]) -> dict[str, str]:
    """Name of each option (a letter or a number) -> the column that holds it; empty where there are none.

    Raises ValueError where columns of two kinds could be the options.
    """
    families: dict[tuple[str, str], dict[str, str]] = {}
    for key in keys:
        for kind, pattern in (("letter", LETTERED_OPTION), ("number", NUMBERED_OPTION)):
            if match := pattern.fullmatch(plain(key)):
                families.setdefault((kind, match[1]), {})[match[2]] = key
    whole = [dict(sorted(members.items())) for members in families.values() if len(members) > 1]
    if len(whole) > 1:
        listed = " and ".join(f"`{next(iter(members.values()))}`" for members in whole)
        raise ValueError(f"columns such as {listed} may each be the options, expected one kind of them")
    return whole[0] if whole else {}


def read_options(options: object, name: str, seen: Seen) -> Options:
    """The options in order; raises ValueError with what is wrong."""
    named = _by_name(options, name, seen)
    names = [SHORT.sub("", str(key)).upper() for key in named]
    if len(set(names)) < len(names):
        raise ValueError(f"`{name}` are {SHOWN.repr(names)}, expected each once")
    # A Parquet column has the same names in each row, with null for those that a question lacks.
    order = sorted((given, key) for given, key in zip(names, named, strict=True) if not is_missing(named[key]))
    given = "".join(short for short, _ in order)
    first = int(given[0]) if given.isdecimal() else None
    numbers = OPTION_LETTERS[: len(order)] if first is None else [str(first + i) for i in range(len(order))]
    if not 2 <= len(order) <= len(OPTION_LETTERS) or given != "".join(numbers) or first not in (None, 0, 1):
        got = SHOWN.repr([short for short, _ in order])
        raise ValueError(f"`{name}` are {got}, expected two to five of A, B, C, D and E, without a gap")
    texts = {
        letter: seen.text(named[key], name, may_be_number=True) or ""
        for letter, (_, key) in zip(OPTION_LETTERS, order, strict=False)
    }
    if all((own := OWN_LETTER.match(text)) and own[1] == letter for letter, text in texts.items()):
        texts = {letter: OWN_LETTER.sub("", text, count=1) for letter, text in texts.items()}
    if not all(text.strip() for text in texts.values()):
        raise ValueError(f"an option of `{name}` is empty, expected text in every one")
    return Options(texts, first)


def without_last_wrong(options: dict[str, str], right: str, most: int) -> tuple[dict[str, str], str]:
    """At most so many options and the right one's letter; the last wrong ones go, the order stays."""
    wrong = [letter for letter in options if letter != right]
    kept = [letter for letter in options if letter == right or letter in wrong[: most - 1]]
    renamed = dict(zip(OPTION_LETTERS, (options[letter] for letter in kept), strict=False))
    return renamed, OPTION_LETTERS[kept.index(right)]


def _by_name(options: object, name: str, seen: Seen) -> dict[str, object]:
    """Each option by its letter or number, those of a list by their letters."""
    if isinstance(options, dict):
        lists = {plain(key): value for key, value in options.items()}
        for key, text in NAMES:  # ARC's: {"label": ["A", ...], "text": [...]}
            if isinstance(lists.get(key), list) and isinstance(lists.get(text), list):
                return _paired(lists[key], lists[text], name)
        return options
    if not isinstance(options, list):
        raise ValueError(f"`{name}` is {type(options).__name__}, expected an object or a list of options")
    for key, text in NAMES:
        if options and all(isinstance(option, dict) and {key, text} <= option.keys() for option in options):
            seen.unread.update(f"{name}.{more}" for option in options for more in option.keys() - {key, text})
            return _paired([option[key] for option in options], [option[text] for option in options], name)
    while options and is_missing(options[-1]):
        options = options[:-1]
    if len(options) > len(OPTION_LETTERS):
        raise ValueError(f"`{name}` are {len(options)}, expected two to five")
    return dict(zip(OPTION_LETTERS, options, strict=False))


def _paired(names: list, texts: list, name: str) -> dict[str, object]:
    if len(names) != len(texts) or not all(isinstance(one, str | int) for one in names):
        raise ValueError(f"`{name}` are {SHOWN.repr(names)}, expected a letter and a text for each option")
    if len(set(names)) < len(names):
        raise ValueError(f"`{name}` are {SHOWN.repr(names)}, expected each letter once")
    return {str(one): text for one, text in zip(names, texts, strict=True)}
