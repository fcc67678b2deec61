"""Read and write files so that a reader never sees half of one."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from stages.lib.core.errors import UserError

Kind = TypeVar("Kind", list, dict)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary name beside `target`; rename it to `target` when the block succeeds.

    Works for files and folders. DVC hard-links its cache into the workspace, so an existing target
    must be replaced, never written in place. What a killed run left under the temporary name goes first.
    An OSError of the block that names no file names the target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.partial")
    remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            remove(target)
        temporary.replace(target)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk, met while a file is written, names none
            error.filename = str(target)
        raise
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Remove a file or a folder, or nothing where nothing is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; the file is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_verified(path: Path, target: Path, sha256: str) -> str:
    """Copy a file and return its SHA-256; with `sha256` given, only a file of that hash becomes `target`.

    Raises UserError with both hashes, the target being as it was; or where the file cannot be read or written.
    """
    digest = hashlib.sha256()
    try:
        with replacing(target) as temporary:
            with path.open("rb") as source, temporary.open("wb") as copy:
                while block := source.read(1 << 20):
                    digest.update(block)
                    copy.write(block)
            found = digest.hexdigest()
            if sha256 and found != sha256:
                raise UserError(f"{path} has sha256 {found}, expected {sha256}")
    except OSError as error:
        raise UserError(f"{path} not copied to {target}: {error}; fix that and run again") from error
    return found


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: object) -> None:
    """Write one JSON value, indented, keys in the order given, with a final newline."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Write one JSON object a line."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file; raises UserError with file and line where it is missing or malformed."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})") from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    """Yield (line number from 1, object) for each non-empty line; raises UserError as `read_json` does."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not valid JSON: {error.msg} (column {error.colno})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
        yield number, row


def read_yaml(path: Path, kind: type[Kind]) -> Kind:
    """Parse a YAML file whose top is a `kind`; raises UserError with the file where it is not."""
    try:
        value = yaml.load(read_text(path), Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, kind):
        raise UserError(f"{path}: expected a {kind.__name__} at the top, got {type(value).__name__}")
    return value


def read_text(path: Path) -> str:
    """UTF-8 text of a file; raises UserError where it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
