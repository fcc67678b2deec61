"""Which split a dialogue belongs to."""

import hashlib


def content_hash(words: list[str]) -> str:
    """SHA-256 of a text's words, in hex."""
    return hashlib.sha256(" ".join(words).encode("utf-8", "surrogatepass")).hexdigest()


def split_of(hashed: str, validation: float, test: float) -> str:
    """train, validation or test by the content hash alone, so that adding rows never moves another row."""
    position = int(hashed[:16], 16) / 16**16
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"
