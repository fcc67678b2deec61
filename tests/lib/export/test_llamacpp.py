"""llama.cpp's tools: what stops them is said, and nothing half-written is left."""

import json
import shutil
import subprocess
import sys

import pytest

from stages.lib.base import byte_level
from stages.lib.core.errors import UserError
from stages.lib.core.resources import llama_cpp_build
from stages.lib.export import llamacpp
from support.settings import ROOT

# Make a file as it should be, then again on a disk that has 8 kB less than it takes.
ON_A_FULL_DISK = """
import subprocess, sys
from pathlib import Path
from stages.lib.export import llamacpp
from stages.lib.core.errors import UserError
merged, gguf, whole, target = map(Path, sys.argv[2:])
make = eval("lambda target: llamacpp." + sys.argv[1])
make(whole)
size = whole.stat().st_size - 8192
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", target.parent], check=True)
target.write_text("before")
try:
    make(target)
except UserError as error:
    print(error)
print(*[path.name for path in target.parent.iterdir()], target.read_text())
"""


@pytest.mark.parametrize(
    "tool",
    [
        "convert(merged, target, {})",
        "quantize(gguf, target, 'q4_K_M', {})",
        "imatrix(gguf, 'a word ' * 3000, target, 4)",
    ],
)
def test_a_full_disk_is_said_and_keeps_what_was_there(tool, merged, gguf, tmp_path):
    """llama-imatrix, for one, ends well there, with half a file."""
    alone = ["unshare", "--mount", "--map-root-user"]  # may mount, and nobody else sees it
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this system lets no user mount a disk of his own")
    (tmp_path / "small").mkdir()
    given = [tool, merged, gguf, tmp_path / "whole.gguf", tmp_path / "small/made.gguf"]
    command = [*alone, sys.executable, "-c", ON_A_FULL_DISK, *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said, left = done.stdout.splitlines()
    assert said.endswith(f"failed: the disk of {tmp_path / 'small'} is full; make room and run the same command")
    assert left == "made.gguf before"


def test_another_split_pattern_is_refused_and_nothing_is_written(merged, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(merged, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\s+|\S+"}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="exactly as Llama-3 or SmolLM does"):
        llamacpp.convert(other, tmp_path / "model.gguf", {})
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_split_pattern_of_a_base_and_of_the_converter_are_one():
    import convert

    assert byte_level.LLAMA3_SPLIT == convert.LLAMA3_SPLIT


def test_no_build_is_one_clear_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"no llama\.cpp build there"):
        llama_cpp_build()


def test_the_version_says_which_build_it_is(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/llama-quantize").touch()
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    assert llamacpp.version().endswith(", CPU build")
    (tmp_path / "bin/libggml-cuda.so").touch()
    assert llamacpp.version().endswith(", CUDA build")
