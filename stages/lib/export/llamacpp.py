"""Every llama.cpp tool and its flags: converting, quantising, measuring.

A server, which goes on running, is `llama_server`'s.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from gguf import GGUFReader

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, replacing
from stages.lib.core.resources import ROOT, llama_cpp_build, require_disk

PIN = ROOT / "llama.cpp" / "pin.json"
CONVERTER = ROOT / "llama.cpp" / "convert.py"
CHUNK = 512  # tokens that llama-imatrix reads at a time
ATTEMPTS = 5  # llama-perplexity logs from a thread of its own, which its end may cut off on a busy machine
FULL = 1 << 20  # bytes: a disk on which a tool could not write has fewer free
UNWEIGHED = ("q8_0",)  # so fine that the quantizer asks no importance matrix


def version() -> str:
    """Which llama.cpp this is: as llama.cpp/pin.json has it, built for CUDA or for the CPU, which round differently."""
    pin = read_json(PIN)
    device = "CUDA" if list((llama_cpp_build() / "bin").glob("*ggml-cuda*")) else "CPU"
    return f"{pin['package']} {pin['version']}, sha256 {pin['sha256']}, {device} build"


def sum_in_float32() -> None:
    """Let CUDA multiply and sum in float32, not rounded to TF32, from here on, here and in processes started here.

    Before CUDA is first used. llama.cpp's own kernels for a few tokens at a time do not ask.
    """
    os.environ.setdefault("GGML_CUDA_CUBLAS_COMPUTE_TYPE", "f32")
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # llama.cpp asks cuBLAS for TF32; source: ggml-cuda/common.cuh


def convert(model: Path, target: Path, metadata: dict[str, str]) -> None:
    """Convert a model folder to a float16 GGUF that carries `metadata` too.

    Raises UserError with the converter's last lines, or where the disk has no room.
    """
    require_disk(target.parent, sum(path.stat().st_size for path in model.glob("*.safetensors")), "the float16 GGUF")
    # --model-name: else the name in the metadata would follow the folder's.
    _convert("convert_hf_to_gguf.py", [model, "--model-name", target.stem], target, metadata)


def convert_adapter(base: Path, adapter: Path, target: Path, metadata: dict[str, str]) -> None:
    """Convert a LoRA adapter of linear layers and embeddings alone; the base's config is read, not its weights."""
    _convert("convert_lora_to_gguf.py", ["--base", base, adapter], target, metadata)


def _convert(script: str, arguments: Sequence[object], target: Path, metadata: dict[str, str]) -> None:
    command = [sys.executable, CONVERTER, llama_cpp_build(), json.dumps(metadata), script, *arguments]
    with replacing(target) as temporary:
        output = ["--outtype", "f16", "--outfile", temporary]
        _run([*command, *output], f"converting to {target}", writes=temporary)


def imatrix(source: Path, text: str, target: Path, chunks: int) -> None:
    """Measure on a text how much each weight of a float16 GGUF matters; markers in it become control tokens.

    At most `chunks` times 512 tokens are read. Raises UserError with the tool's last lines, or where the file is cut
    off: the tool ends well on a full disk too.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.txt").write_text(text, encoding="utf-8")
        command = [_tool("llama-imatrix"), "-m", source.absolute(), "-f", "train.txt", "--parse-special"]
        command += ["--output-format", "gguf", "-c", CHUNK, "--chunks", chunks, "--no-ppl", "-o"]
        what = f"measuring the importance of {source}'s weights"
        with replacing(target) as temporary:
            # In the text's folder: its name is written into the file, and no path of this machine should be.
            _run([*command, temporary.absolute()], what, cwd=Path(folder), writes=temporary)
            try:
                GGUFReader(temporary)
            except (IndexError, ValueError) as error:
                raise _failure(what, f"{target} is cut off", temporary) from error


def quantize(
    source: Path, target: Path, kind: str, tensor_types: Mapping[str, str], importance: Path | None = None
) -> None:
    """Quantise a float16 GGUF to one of QUANT_TYPES, weighing errors by an importance matrix where one is given.

    `tensor_types`: matrices of each layer, such as "ffn_up", that get another type than the quant type has for them.
    Raises UserError with the quantizer's last lines, or where the disk has no room.
    """
    if not source.is_file():
        raise UserError(f"{source}: no such file; build it with `dvc repro convert`")
    tool = _tool("llama-quantize")
    options = [part for name, other in tensor_types.items() for part in ("--tensor-type", f"{name}={other}")]
    options += ["--imatrix", importance.name] if importance else []
    cwd = importance.parent if importance else None  # its name is written into the file, and no path of this machine
    what = f"quantising {source} to {kind}"
    with replacing(target) as temporary:
        arguments = [*options, source.absolute(), temporary.absolute(), kind.upper()]
        planned = _run([tool, "--dry-run", *arguments], what, cwd)
        if sizes := re.findall(r"quant size\s*=\s*([\d.]+) MiB", planned):
            require_disk(target.parent, int(float(sizes[-1]) * 2**20), f"the {kind} GGUF")
        _run([tool, *arguments], what, cwd, writes=temporary)


def perplexity(source: Path, text: str, context: int, chunks: int) -> float:
    """llama-perplexity's own figure of a text, in at most `chunks` chunks of `context` tokens.

    Raises UserError with its last lines where it gives none.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text, encoding="utf-8")
        command = [_tool("llama-perplexity"), "-m", source, "-f", path, "-c", context, "-b", context]
        command += ["--chunks", chunks]
        for _ in range(ATTEMPTS):
            printed = _run(command, f"measuring the perplexity of {source}")
            if estimate := re.search(r"Final estimate: PPL = ([\d.]+)", printed):
                return float(estimate[1])
    raise UserError(f"{source}: llama-perplexity gave no estimate in {ATTEMPTS} attempts: {last_lines(printed)}")


def server_command(source: Path, context: int, host: str, port: int) -> list[str]:
    """What starts a llama-server that has a GGUF loaded and renders prompts by its own template."""
    command = [_tool("llama-server"), "-m", source, "-c", context, "--host", host, "--port", port, "--jinja"]
    return list(map(str, command))


def library_path() -> Path:
    """The folder of the shared libraries that llama-cpp-python loads."""
    return llama_cpp_build() / "bin"


def _tool(name: str) -> Path:
    return library_path() / name


def _run(command: Sequence[object], what: str, cwd: Path | None = None, writes: Path | None = None) -> str:
    """Run a tool, which may write a file, and return what it printed, which is shown only where it fails."""
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=cwd
    )
    if done.returncode:
        raise _failure(what, f"exit status {done.returncode}: {last_lines(done.stdout)}", writes)
    return done.stdout


def _failure(what: str, reason: str, writes: Path | None) -> UserError:
    """Why a tool failed: the disk of the file that it writes is full, which none says plainly, or what it said."""
    if writes and shutil.disk_usage(writes.parent).free < FULL:
        reason = f"the disk of {writes.parent} is full; make room and run the same command"
    return UserError(f"{what} failed: {reason}")


def last_lines(text: str) -> str:
    """The last three lines of what a tool printed, as one."""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-3:])
