"""What a source must say of itself before anything is fetched, and what pins files of the user's own."""

import hashlib
from pathlib import Path

from stages.lib.core.composition import quoted
from stages.lib.core.errors import UserError
from stages.lib.core.files import sha256
from stages.lib.core.paths import checkout
from stages.lib.settings.data import Source


def require_pinned(source: Source) -> None:
    """Raise UserError where an http source has no hash, or a file of the user's own is not named, there or pinned.

    What pins a hub source may be known only once it was fetched.
    """
    if source.kind == "http" and not source.sha256:
        raise UserError(f"data.sources[{source.name}]: an http source needs a sha256 of 64 hex digits, got none")
    if source.kind == "file":
        _require_file(source)


def local_path(source: Source) -> Path:
    """Where a file of the user's own is; relative paths start at the main checkout."""
    return checkout() / Path(source.path).expanduser()


def local_files(path: Path) -> list[Path]:
    """The file; of a folder the files in it; of a pattern such as parts/*.jsonl those that it matches; by name.

    What is there under its very name is no pattern. Hidden files are left out.
    """
    if path.is_file():
        return [path]
    found = path.iterdir() if path.is_dir() else Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))


def local_sha256(path: Path) -> str:
    """What pins `local_files`: the SHA-256 of one file, of several that of their hashes and names, "" of none."""
    files = local_files(path)
    if files == [path]:
        return sha256(path)
    listed = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest() if files else ""


def compose_command(source: Source, path: str) -> str:
    """The command that names a file of the user's own and pins it by its hash."""
    return f"dvc exp run -S data=local -S {quoted(f'data.{source.name}', path)}"


def _require_file(source: Source) -> None:
    compose = compose_command(source, "PATH")
    if not source.path:
        raise UserError(f"data.{source.name} is not set; name the file with `{compose}`")
    path = local_path(source)
    files = local_files(path)
    if not files:
        raise UserError(f"data.{source.name}: {source.path} is no file or folder of files; name it with `{compose}`")
    if path.is_dir() and (inner := [folder.name for folder in sorted(path.iterdir()) if folder.is_dir()]):
        raise UserError(f"data.{source.name}: {source.path} holds a folder, {inner[0]}; name the files by a pattern")
    names = [file.name for file in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"data.{source.name}: {source.path} matches two files called {twice[0]}; rename one")
    if not source.sha256:
        fix = f"`{compose}`, or `sha256: {local_sha256(path)}` at that source in conf/data/"
        raise UserError(f"data.{source.name}: {source.path} has no sha256 in params.yaml; take it up with {fix}")
