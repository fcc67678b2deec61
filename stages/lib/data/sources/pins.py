"""What a source must say of itself before anything is fetched."""

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


def compose_command(source: Source, path: str) -> str:
    """The command that names a file of the user's own and pins it by its hash."""
    return f"dvc exp run -S data=local -S {quoted(f'data.{source.name}', path)}"


def _require_file(source: Source) -> None:
    compose = compose_command(source, "PATH")
    if not source.path:
        raise UserError(f"data.{source.name} is not set; name the file with `{compose}`")
    path = local_path(source)
    if not path.is_file():
        raise UserError(f"data.{source.name}: {source.path} is no file; name it with `{compose}`")
    if not source.sha256:
        fix = f"`{compose}`, or `sha256: {sha256(path)}` at that source in conf/data/"
        raise UserError(f"data.{source.name}: {source.path} has no sha256 in params.yaml; take it up with {fix}")
