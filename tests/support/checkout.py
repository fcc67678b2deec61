"""A fresh checkout of the working tree's files, and the commands that a user runs in it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from stages.lib.core.resources import llama_cpp_build
from support.settings import ROOT


def call(folder: Path, *command: str) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LLAMA_CPP_DIR": str(llama_cpp_build()),
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def done(folder: Path, *command: str) -> str:
    """What a command that must succeed prints."""
    result = call(folder, *command)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(.+?)'", output)


def commit(folder: Path) -> None:
    done(folder, "git", "add", "--all")
    done(folder, "git", "commit", "--quiet", "-m", "state")


def fresh_checkout(folder: Path) -> None:
    """The working tree's files in a repository of their own, which has a name for Git wherever the tests run."""
    listed = done(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    done(folder, "git", "init", "--quiet")
    for key, value in (("user.name", "test"), ("user.email", "test@localhost")):
        done(folder, "git", "config", key, value)
    commit(folder)
