"""Where a GGUF comes from: `python -m inference.lineage FILE.gguf`.

Prints what its metadata says and, inside the repository, which commit made it and how each ancestor is fetched.
"""

import itertools
import subprocess
import sys
from pathlib import Path

import yaml

from stages.lib.base.gguf_file import read_gguf
from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.export.gguf_keys import DVC, PREFIX, lineage_of
from stages.lib.export.provenance import dvc_md5


def main(file: Path) -> None:
    """Print the lineage; raises UserError where the file has none, or was altered since it was made."""
    keys = lineage_of(read_gguf(file))
    for key, value in keys.items():
        print(f"{key.removeprefix(PREFIX)}: {value}")
    ancestors = {key.removeprefix(DVC): value for key, value in keys.items() if key.startswith(DVC)}
    commit, outs = commit_with(ancestors)
    if not commit:
        print("\nno commit of this repository has these hashes in its dvc.lock")
        return
    print(f"\ncommit: {commit}")
    for path in ancestors:
        print(f"  dvc get . {path} --rev {commit}")
    ggufs = {path: md5 for path, md5 in outs.items() if path.startswith(f"{paths.GGUF}/")}
    print(f"unaltered: {unaltered(file, ggufs)} of that commit, byte for byte")


def unaltered(file: Path, ggufs: dict[str, str]) -> str:
    """Which of a commit's GGUFs, MD5 by path, a file is; raises UserError where it is none of them."""
    own = dvc_md5(file)
    for path, md5 in ggufs.items():
        if md5 == own:
            return path
    if expected := ggufs.get(f"{paths.GGUF}/{file.name}"):
        listed = f"dvc.lock has {expected} for {file.name}"
    else:
        listed = f"dvc.lock has no {file.name}, but {', '.join(ggufs)}"
    raise UserError(f"{file}: ALTERED, or not made by that commit: its md5 is {own}; {listed}")


def commit_with(ancestors: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The newest commit whose dvc.lock has these hashes by path, and all its outs; empty where there is none.

    What is checked out comes before other branches, and those before the experiments that DVC keeps beside them.
    """
    reachable = [
        git("log", refs, "--format=%H", "--", str(paths.LOCK)).split() for refs in ("HEAD", "--branches", "--all")
    ]
    for commit in dict.fromkeys(itertools.chain(*reachable)):
        lock = yaml.load(git("show", f"{commit}:{paths.LOCK}"), Loader=yaml.CSafeLoader) or {}
        stages = lock.get("stages", {}).values()
        outs = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}
        if ancestors.items() <= outs.items():
            return commit, outs
    return "", {}


def git(*arguments: str) -> str:
    """What git prints; nothing outside a repository, or where a commit lacks the file."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m inference.lineage FILE.gguf")
    try:
        main(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"lineage: {error}")
