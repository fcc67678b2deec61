"""The raw file of each kind of source, fetched and copied into data/raw."""

import re
from pathlib import Path

from stages.lib.core.errors import UserError
from stages.lib.core.files import copy_verified, sha256, write_json, write_jsonl
from stages.lib.core.paths import checkout
from stages.lib.data.sources import download, pins, sample
from stages.lib.settings.data import Source

ENDING = re.compile(r"\.\w{1,8}(\.gz|\.zst)?\Z")  # of a file's name, for people: what a file holds is told by its bytes
DOWNLOADS = ".downloads"  # of http sources, by hash; may be deleted at any time


def raw_file(source: Source, raw: Path) -> Path:
    """Where a source lies in data/raw: a file, or the folder of several."""
    if source.kind == "sample":
        return raw / f"{source.name}.{'json' if source.records == 'dialogues' else 'jsonl'}"
    if source.kind == "file" and pins.local_files(path := pins.local_path(source)) != [path]:
        return raw / source.name
    ending = ENDING.search(source.path.lower())
    return raw / f"{source.name}{ending[0] if ending else ''}"


def fetch_source(source: Source) -> Path:
    """A file, http or hub source on this machine, downloaded where it must be; its bytes are not verified yet.

    Raises UserError where it cannot be had.
    """
    pins.require_pinned(source)
    if source.kind == "file":
        return pins.local_path(source)
    if source.kind == "http":
        return download.from_http(source.path, source.sha256, checkout() / DOWNLOADS)
    return download.from_hub(source.repo, source.revision, source.path)


def copy_source(source: Source, fetched: Path, raw: Path) -> None:
    """Copy a source's file into data/raw, its SHA-256 verified on the way.

    A hub file that differs from its pin is removed from the hub's cache too. Raises UserError with both hashes;
    and where nothing pins a source, with the hash that would.
    """
    if source.kind == "hub" and not source.sha256 and not download.COMMIT.fullmatch(source.revision):
        raise UserError(
            f"data.sources[{source.name}]: neither sha256 nor a commit pins {source.repo}, {source.path}; the file of "
            f"{source.revision!r} has sha256 {sha256(fetched)} today: if you trust it, write that in conf/data/"
        )
    try:
        target = raw_file(source, raw)
        if source.kind == "file" and not fetched.is_file():
            _copy_files(fetched, target, source.sha256)
        else:
            copy_verified(fetched, target, source.sha256)
    except UserError as error:
        if source.kind == "hub" and fetched.is_file() and sha256(fetched) != source.sha256:
            download.discard(fetched)
        hint = f"; if the change is meant, take it up with `{pins.compose_command(source, source.path)}`"
        raise UserError(f"data.sources[{source.name}]: {error}{hint if source.kind == 'file' else ''}") from error


def _copy_files(fetched: Path, target: Path, expected: str) -> None:
    """Copy the files of a folder or pattern into a folder; raises UserError with both hashes where they changed."""
    target.mkdir()
    for file in pins.local_files(fetched):
        copy_verified(file, target / file.name, "")
    if (found := pins.local_sha256(target)) != expected:
        raise UserError(f"{fetched} has sha256 {found}, expected {expected}")


def generate_sources(sources: list[Source], tables: Path, seed: int, raw: Path) -> None:
    """Write the generated sources; the questions come from one draw, so that train and test share none."""
    questions = [source for source in sources if source.records != "dialogues"]
    drawn = sample.questions(tables, sum(source.count for source in questions), seed) if questions else []
    for source in sources:
        if source.records == "dialogues":
            write_json(raw_file(source, raw), sample.dialogues(tables, source.count, seed))
        else:
            write_jsonl(raw_file(source, raw), drawn[: source.count])
            drawn = drawn[source.count :]


def describe_source(source: Source, raw: Path) -> dict:
    """What data/raw/sources.json says of a source; of a file of the user's own the name, not where it lay."""
    path = raw_file(source, raw)
    return vars(source) | {
        "path": Path(source.path).name if source.kind == "file" else source.path,
        "file": path.name,
        "sha256": source.sha256 or sha256(path),  # a pin was checked while the file was copied
        "bytes": sum(file.stat().st_size for file in pins.local_files(path)),
    }
