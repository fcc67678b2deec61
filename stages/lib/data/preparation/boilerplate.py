"""What answers on consultation sites begin and end with, cut off."""

import re
from collections.abc import Iterable
from functools import cache

REACH = 240  # characters at the end of an answer that the closing patterns are tried on
MOST = 30  # pieces that are cut off either end, so that a text of nothing else costs little
LEFT_OVER = re.compile(r"[\s,;:–-]+\Z")  # what stood between the answer and its closing


def strip_boilerplate(answer: str, patterns: dict[str, str]) -> tuple[str, list[str]]:
    """The answer without its opening (`^`) and closing (`$`) boilerplate, and the names of the patterns that fitted.

    Each pattern is tried again, since a greeting, thanks and "I have read your query" follow one another in any
    order. Where an opening went, the rest begins with a capital.
    """
    opening, closing = _compiled(tuple(patterns.items()))
    left, opened, closed = answer, [], []
    while len(opened) < MOST and (fit := _first((name, p.match(left)) for name, p in opening)):
        left = left[fit[1].end() :]
        opened.append(fit[0])
    if opened and left[1:2].islower():
        left = left[:1].upper() + left[1:]
    while len(closed) < MOST and (fit := _first((name, p.search(left[-REACH:])) for name, p in closing)):
        left = LEFT_OVER.sub("", left[: len(left) - len(fit[1].group())])
        closed.append(fit[0])
    return left.strip(), opened + closed


def _first(tried: Iterable[tuple[str, re.Match | None]]) -> tuple[str, re.Match] | None:
    """The first pattern that found some text, with what it found."""
    return next(((name, match) for name, match in tried if match and match.group()), None)


@cache
def _compiled(patterns: tuple[tuple[str, str], ...]) -> tuple[list, list]:
    opening = [(name, p) for name, p in patterns if p.startswith("^")]
    closing = [(name, rf"(?:{p.removesuffix('$')})\Z") for name, p in patterns if not p.startswith("^")]
    return tuple([(name, re.compile(p, re.IGNORECASE)) for name, p in some] for some in (opening, closing))
