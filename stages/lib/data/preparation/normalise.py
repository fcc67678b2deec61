"""Text as one writes it: mojibake repaired, no HTML, no invisible characters, NFC, plain spaces."""

import html
import re
import unicodedata

import ftfy

# What plain text never holds; a text of ASCII without any of it is normal already. Most are.
SUSPECT = re.compile(r"[^\x0a\x20-\x7e]|&[#\w]|<[/!a-zA-Z]|  |\n\n\n| \n|\n |^\s|\s\Z")
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# A tag has nothing or attributes behind its name: "it took <a week and was >5" is none.
REST = r"""(?:\s+[\w-]+\s*=\s*(?:"[^"<>]{0,300}"|'[^'<>]{0,300}'|[^\s<>"']{1,300})){0,20}\s*/?>"""
BREAK = re.compile(rf"<(?:br|/?p|/?div|/?li|/?tr|/?ul|/?ol|/?h[1-6]){REST}", re.IGNORECASE)
TAG = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|body|center|code|em|font|form|head|hr|html|i|img|input|link|meta|pre|s|script|small"
    rf"|span|strike|strong|style|sub|sup|table|tbody|td|th|thead|title|tt|u){REST}|<!--.{{0,1000}}?-->",
    re.IGNORECASE | re.DOTALL,
)
# C0 and C1 controls, soft hyphen, zero-width and direction marks, byte-order mark, lone surrogates.
INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u0084\u0086-\u009f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064"
    "\ud800-\udfff\ufeff]"
)
LINE_ENDS = re.compile("\r\n|\r|\u0085|\u2028|\u2029")
SPACES = re.compile(r"[^\S\n]+")
AROUND_NEWLINE = re.compile(r" ?\n ?")
BLANK_LINES = re.compile(r"\n{3,}")
PASSES = 8  # an entity can hide an entity; nobody nests them deeper


def normalise(text: str) -> tuple[str, list[str]]:
    """The normal form of a text, and the names of the steps that changed it.

    Steps: HTML entities, mojibake (ftfy), HTML tags, invisible characters, Unicode NFC, white space (runs of
    spaces as one, at most one blank line). Repeated until nothing changes, so the result is a fixed point
    unless entities are nested deeper than eight times.
    """
    changed: dict[str, None] = {}
    for _ in range(PASSES):
        before = text
        if not SUSPECT.search(text):
            break
        for name, step in STEPS.items():
            after = step(text)
            if after != text:
                changed[name] = None
            text = after
        if text == before:
            break
    return text, list(changed)


def _entities(text: str) -> str:
    return ENTITY.sub(lambda found: html.unescape(found.group()), text) if "&" in text else text


def _mojibake(text: str) -> str:
    return text if text.isascii() else ftfy.fix_encoding(text)


def _tags(text: str) -> str:
    return TAG.sub("", BREAK.sub("\n", text)) if "<" in text else text


def _invisible(text: str) -> str:
    return INVISIBLE.sub("", LINE_ENDS.sub("\n", text))


def _spaces(text: str) -> str:
    return BLANK_LINES.sub("\n\n", AROUND_NEWLINE.sub("\n", SPACES.sub(" ", text))).strip()


STEPS = {
    "html_entities": _entities,
    "mojibake": _mojibake,
    "html_tags": _tags,
    "invisible_characters": _invisible,
    "unicode": lambda text: unicodedata.normalize("NFC", text),
    "white_space": _spaces,
}
