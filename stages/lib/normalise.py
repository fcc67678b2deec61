"""Text as one writes it: NFC, plain spaces, no invisible characters."""

import re
import unicodedata

INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u0084\u0086-\u009f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
)
LINE_ENDS = re.compile("\r\n|\r|\u0085|\u2028|\u2029")
SPACES = re.compile(r"[^\S\n]+")
AROUND_NEWLINE = re.compile(r" ?\n ?")
BLANK_LINES = re.compile(r"\n{3,}")


def normalise(text: str) -> str:
    """Unicode NFC, control and zero-width characters removed, runs of spaces as one, at most one blank line.

    Idempotent.
    """
    text = LINE_ENDS.sub("\n", text)
    text = unicodedata.normalize("NFC", INVISIBLE.sub("", text))
    text = AROUND_NEWLINE.sub("\n", SPACES.sub(" ", text))
    return BLANK_LINES.sub("\n\n", text).strip()
