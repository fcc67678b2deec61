"""Files as their plain bytes: those packed by gzip or zstd are unpacked while they are read, in bounded memory."""

import io
from pathlib import Path

import pyarrow as pa

from stages.lib.core.errors import UserError

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # a file's first bytes -> what packed it
UNREADABLE = {  # likewise -> what it is
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as CSV (UTF-8)",
    b"BZh": "compressed by bzip2; unpack it, or compress it by gzip or zstd",
    b"\xfd7zXZ": "compressed by xz; unpack it, or compress it by gzip or zstd",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}
# Text packs three to ten times: what unpacks a hundred times is refused while it is read.
MOST_RATIO = 100  # of the unpacked size to the file's
MOST_BYTES = 2**28  # unpacked: below it a file may exceed that ratio


def opened(path: Path) -> io.BufferedReader:
    """The file's plain bytes as a stream; raises UserError for a file of another kind, OSError for a corrupt one."""
    with path.open("rb") as file:
        head = file.read(8)
    for magic, what in UNREADABLE.items():
        if head.startswith(magic):
            raise UserError(f"{path} is {what}")
    for magic, codec in MAGIC.items():
        if head.startswith(magic):
            return io.BufferedReader(_Unpacked(path, codec), 2**18)
    return path.open("rb")


def require_bounded(path: Path, unpacked: int) -> None:
    """Raise UserError where so many bytes are more than data of a file of this size can honestly be."""
    most = max(MOST_BYTES, MOST_RATIO * path.stat().st_size)
    if unpacked > most:
        raise UserError(f"{path} unpacks to {unpacked} bytes or more, expected at most {most} of a file of this size")


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of a file, counted as they come; Arrow reads all members or frames, and refuses a cut one."""

    def __init__(self, path: Path, codec: str) -> None:
        self._path = path
        self._stream = pa.CompressedInputStream(pa.OSFile(str(path)), codec)
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._read += len(data)
        require_bounded(self._path, self._read)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
