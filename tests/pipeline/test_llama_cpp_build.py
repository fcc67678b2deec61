"""llama.cpp/build.py: what it refuses, in one sentence and with nothing kept."""

import json
import os
import runpy
import shutil
import subprocess
import sys

import pytest

from support.settings import ROOT


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "llama.cpp"
    copy.mkdir()
    shutil.copyfile(ROOT / "llama.cpp/pin.json", copy / "pin.json")
    script = (ROOT / "llama.cpp/build.py").read_text()
    for place in ("/dev", "/usr/local/cuda"):  # what this machine has there says nothing
        script = script.replace(f'Path("{place}")', f'Path("{tmp_path}")')
    (copy / "build.py").write_text(script)
    return copy


def build(folder, **environment):
    command = [sys.executable, str(folder / "build.py")]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def test_an_archive_of_another_sha256_is_refused_and_removed(folder):
    pin = json.loads((folder / "pin.json").read_text())
    archive = folder / "src" / f"llama_cpp_python-{pin['version']}.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"something else")
    done = build(folder)
    assert done.returncode == 1
    assert pin["sha256"] in done.stderr and "nothing was kept" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(archive.parent.iterdir())


def test_no_compiler(folder, tmp_path):
    done = build(folder, PATH=str(tmp_path), CXX="")
    assert done.returncode == 1
    assert "no C++ compiler" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def stamped(folder, cuda: bool) -> None:
    """As if it had been built before."""
    builder = runpy.run_path(str(folder / "build.py"))
    options = [*builder["OPTIONS"], *builder["WITHOUT_AMX"]]
    pin = json.loads((folder / "pin.json").read_text())
    (folder / "build").mkdir(exist_ok=True)
    stamp = pin | {"cuda": cuda, "beside": builder["BESIDE"], "options": options}
    (folder / "build/stamp.json").write_text(json.dumps(stamp))


def with_tools(folder, *names: str) -> str:
    """A PATH on which these programs are, which do nothing."""
    tools = folder / "-".join(["tools", *names])
    tools.mkdir()
    for name in names:
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    return str(tools)


@pytest.mark.parametrize("cuda", [False, True])
def test_what_is_built_stays_so_unless_told_otherwise(folder, cuda):
    """A plain `make` undoes no CUDA build, and makes none of another, whatever there is by now."""
    stamped(folder, cuda)
    path = with_tools(folder, "nvcc", "nvidia-smi")
    for environment in ({"PATH": path}, {"PATH": ""}, {"PATH": "", "GGML_CUDA": str(int(cuda))}):
        done = build(folder, **{"GGML_CUDA": ""} | environment)
        assert done.returncode == 0 and not done.stderr and not done.stdout
    done = build(folder, PATH=path, CXX="", GGML_CUDA=str(int(not cuda)))
    kind = "for the CPU" if cuda else "with CUDA"
    assert f"building {kind}: GGML_CUDA={int(not cuda)}" in done.stdout and "no C++ compiler" in done.stderr
    assert not (folder / "src").exists() and (folder / "build/stamp.json").is_file()


def test_cuda_is_taken_where_nvcc_and_a_gpu_are_there(folder):
    said = [("nvcc", "nvidia-smi"), ("nvidia-smi",), ("nvcc",), ()]
    expected = [
        "with CUDA: nvcc and a GPU are there",
        "there is no nvcc",
        "there is no GPU\n",
        "there is no GPU and no nvcc",
    ]
    for tools, line in zip(said, expected, strict=True):
        done = build(folder, PATH=with_tools(folder, *tools), CXX="", CUDACXX="", GGML_CUDA="")
        assert done.stdout.startswith("llama.cpp: building ") and line in done.stdout
    done = build(folder, PATH=with_tools(folder, "c++"), CUDACXX="", GGML_CUDA="1")
    assert done.returncode == 1 and "no nvcc found" in done.stderr and "GGML_CUDA=0" in done.stderr


@pytest.mark.parametrize("cuda", [False, True])
def test_a_killed_cuda_build_leaves_no_library_to_a_cpu_build(folder, cuda):
    """Without a stamp nothing else says what was begun; the same kind goes on with what is there."""
    pin = json.loads((folder / "pin.json").read_text())
    (folder / "src" / pin["sha256"][:12]).mkdir(parents=True)
    library = folder / "build/bin/libggml-cuda.so"
    library.parent.mkdir(parents=True)
    library.touch()
    done = build(folder, PATH=with_tools(folder, "c++", "nvcc"), CUDACXX="", GGML_CUDA=str(int(cuda)))
    assert done.returncode == 1 and "failed" in done.stderr  # there is no source
    assert library.exists() == cuda
