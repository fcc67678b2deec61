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
    for name in ("build.py", "pin.json"):
        shutil.copyfile(ROOT / "llama.cpp" / name, copy / name)
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


def test_nothing_to_do_where_the_build_is_there(folder):
    pin = json.loads((folder / "pin.json").read_text())
    (folder / "build").mkdir()
    builder = runpy.run_path(str(folder / "build.py"))
    options = [*builder["OPTIONS"], *builder["WITHOUT_AMX"]]
    stamp = pin | {"cuda": False, "beside": builder["BESIDE"], "options": options}
    (folder / "build/stamp.json").write_text(json.dumps(stamp))
    done = build(folder, PATH="", GGML_CUDA="0")
    assert done.returncode == 0 and not done.stderr
    assert not (folder / "src").exists()
