"""Every llama.cpp binary and flag: where the build lies, converting, quantising."""

import os
import subprocess
import sys
from pathlib import Path

from stages.lib.errors import UserError
from stages.lib.files import replacing

ROOT = Path(__file__).resolve().parents[2]


def home() -> Path:
    """The build: `$LLAMA_CPP_DIR`, else llama.cpp/build of the main checkout (`$DVC_ROOT` in temporary workspaces).

    Raises UserError where nothing was built there.
    """
    named = os.environ.get("LLAMA_CPP_DIR")
    folder = Path(named) if named else Path(os.environ.get("DVC_ROOT", ROOT)) / "llama.cpp" / "build"
    if not (folder / "bin" / "llama-quantize").is_file():
        mend = "point LLAMA_CPP_DIR at a build" if named else "build it with `make llama.cpp`"
        raise UserError(f"{folder}: no llama.cpp build there; {mend}")
    return folder


def convert(model: Path, target: Path) -> None:
    """Convert a model folder to a float16 GGUF; raises UserError with the converter's last lines."""
    adapter = ROOT / "llama.cpp" / "convert.py"
    with replacing(target) as temporary:
        # --model-name: else the name in the metadata would follow the folder's.
        _run(
            [
                sys.executable,
                adapter,
                home(),
                model,
                "--outtype",
                "f16",
                "--outfile",
                temporary,
                "--model-name",
                target.stem,
            ],
            f"converting {model}",
        )


def quantize(source: Path, target: Path, kind: str) -> None:
    """Quantise a float16 GGUF to one of QUANT_TYPES; raises UserError with the quantizer's last lines."""
    if not source.is_file():
        raise UserError(f"{source}: no such file; build it with `dvc repro convert`")
    with replacing(target) as temporary:
        _run([home() / "bin" / "llama-quantize", source, temporary, kind.upper()], f"quantising {source} to {kind}")


def library_path() -> Path:
    """The folder of the shared libraries that llama-cpp-python loads."""
    return home() / "bin"


def _run(command: list[object], what: str) -> None:
    """Run a tool; its output is shown only where it fails."""
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode:
        tail = " / ".join(line.strip() for line in done.stdout.strip().splitlines()[-3:])
        raise UserError(f"{what} failed with exit status {done.returncode}: {tail}")
