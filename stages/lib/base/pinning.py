"""What pins weights of one's own: their SHA-256, not computed again while a file's size and time stand."""

import json
from pathlib import Path

from stages.lib.base.checkpoint import files_of
from stages.lib.core.errors import UserError
from stages.lib.core.files import sha256, write_json
from stages.lib.model.weights import digest_of


def pin_of(path: Path, known: Path) -> str:
    """The hash of a file, or of a model folder (`digest_of`); empty where there is none, which `base` then reports.

    `known` is the JSON file that remembers hashes; it may be deleted at any time.
    """
    try:
        remembered = json.loads(known.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        remembered = {}

    def hash_of(file: Path) -> str:
        now = file.stat()
        state = [now.st_size, now.st_mtime_ns]
        *before, found = remembered.get(str(file.resolve()), [""])
        if before != state:
            found = sha256(file)
            remembered[str(file.resolve())] = [*state, found]
        return found

    try:
        if path.is_file():
            pin = hash_of(path)
        elif path.is_dir():
            pin = digest_of(files_of(path), hash_of)
        else:
            return ""
    except UserError:
        return ""
    write_json(known, remembered)
    return pin
