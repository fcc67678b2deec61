"""Safetensors files read and written by rows, so that no tensor need be in memory whole.

Format: 8 bytes, the header's length; the header, JSON of each tensor's type, shape and place; the tensors' bytes
(https://huggingface.co/docs/safetensors, "Format").
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, sha256

TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
BASE = "base.json"  # in a trained folder: the digest of the base that it belongs to
INDEX = "model.safetensors.index.json"
DEQUANTISED_FROM = "dequantised_from"  # in config.json: the quant type of the GGUF that the weights come from
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
FIX = "fetch the folder again (`dvc pull`, or `dvc repro` of the stage that makes it)"


class Stored(NamedTuple):
    """A tensor on disk: its file, type and shape, and the byte at which it starts."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int


def shards_of(folder: Path) -> list[Path]:
    """The safetensors files of a model or adapter folder, in order, none of them missing.

    Raises UserError where one is missing, or where there are only pickles: loading one runs whatever code it holds.
    """
    if (folder / INDEX).is_file():
        shards = [folder / name for name in sorted(set(read_json(folder / INDEX)["weight_map"].values()))]
        for shard in shards:
            if not shard.is_file():
                raise UserError(f"{shard}: no such file, but {INDEX} names it; {FIX}")
        return shards
    shards = sorted(folder.glob("*.safetensors"))
    if pickles := [path.name for path in folder.glob("*") if path.suffix in PICKLES and not shards]:
        raise UserError(
            f"{folder}: only pickled weights there ({pickles[0]}), which run code when loaded and are refused; "
            "save the model as safetensors"
        )
    if not shards:
        raise UserError(f"{folder}: no weights there; make them with `dvc repro`, or fetch them with `dvc pull`")
    return shards


def stored_in(folder: Path) -> dict[str, Stored]:
    """Every tensor of a folder's files by name, in the files' order; only headers are read."""
    tensors: dict[str, Stored] = {}
    for shard in shards_of(folder):
        for name, stored in header(shard).items():
            if name in tensors:
                raise UserError(f"{shard}: {name} is in {tensors[name].path.name} too; {FIX}")
            tensors[name] = stored
    return tensors


def header(path: Path) -> dict[str, Stored]:
    """The tensors of one file, by name; raises UserError where it is cut off, or holds numbers of another type."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            listed = json.loads(file.read(length)) if 8 + length <= size else None
        except ValueError:
            listed = None
    if not isinstance(listed, dict):
        raise UserError(f"{path}: cut off or no safetensors file: {size} bytes; {FIX}")
    listed.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in listed.values()), default=0)
    if size != end:
        raise UserError(f"{path}: {size} bytes, expected {end}: it was cut off or altered; {FIX}")
    for name, entry in listed.items():
        if entry["dtype"] not in TYPES:
            raise UserError(f"{path}: {name} is {entry['dtype']}, expected {', '.join(TYPES)}: unquantised weights")
    return {
        name: Stored(path, TYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in listed.items()
    }


def read(stored: Stored, first: int = 0, last: int | None = None) -> torch.Tensor:
    """Rows `first` to before `last` of a tensor, all by default, read from the file into memory of their own."""
    rows = (stored.shape[0] if last is None else last) - first
    width = prod(stored.shape[1:])
    # Not mapped: pages of a mapped file would count as this process's memory for as long as the system likes.
    tensor = torch.empty((rows, *stored.shape[1:]), dtype=stored.dtype)
    with stored.path.open("rb", buffering=0) as file:
        file.seek(stored.start + first * width * stored.dtype.itemsize)
        view = tensor.view(torch.uint8).numpy().data.cast("B") if tensor.numel() else memoryview(b"")
        at = 0
        while at < len(view) and (count := file.readinto(view[at:])):
            at += count
    if at < len(view):
        raise UserError(f"{stored.path}: it ended while it was read; {FIX}")
    return tensor


@contextmanager
def writing(path: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> Iterator[BinaryIO]:
    """A safetensors file of one 16-bit type; its tensors' rows are then written one after the other, as in `shapes`."""
    (kind,) = (name for name, one in TYPES.items() if one == dtype)
    listed: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        end = at + 2 * prod(shape)
        listed[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(listed, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        yield file
        if file.tell() != 8 + len(text) + at:
            raise RuntimeError(f"{path}: {file.tell()} bytes written, expected {8 + len(text) + at}")


def save(path: Path, named: dict[str, torch.Tensor]) -> None:
    """Write whole tensors as they are; a disk that is full or may not be written is an OSError, as for any file."""
    try:
        save_file(named, path)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's safetensors files: what identifies a base."""
    return digest_of(shards_of(folder))


def digest_of(files: list[Path], hash_of: Callable[[Path], str] = sha256) -> str:
    """SHA-256 over the names and hashes of files, wherever they lie."""
    lines = [f"{hash_of(path)}  {path.name}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
