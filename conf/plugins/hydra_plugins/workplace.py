"""Hydra loads this module whenever it composes conf/: what `dvc exp run` needs of the folder and of Git."""

import os
import subprocess
import sys
from pathlib import Path

from dvc.exceptions import DvcException
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

ROOT = Path(__file__).resolve().parents[3]


class Workplace(SearchPathPlugin):
    """Looked at before each composition; the search path stays as it is."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Raise DvcException in a folder below the top one, and say where Git has no identity.

        DVC would write another params.yaml there, and run the values of the old one.
        """
        if ROOT in Path.cwd().parents:
            raise DvcException(f"`dvc exp run` composes params.yaml in the current folder: run it in {ROOT}")
        if lacking := [key for key in ("user.name", "user.email") if not _configured(key)]:
            fix = " and ".join(f'`git config --global {key} "…"`' for key in lacking)
            say = f"Git has no {' and no '.join(lacking)}, without which `dvc exp run` stops where files have changed"
            print(f"{say} since the last commit: {fix}", file=sys.stderr, flush=True)


def _configured(key: str) -> bool:
    """Whether DVC finds it, which asks an environment variable and Git's configuration, and guesses nothing."""
    if os.environ.get(f"GIT_COMMITTER_{key.removeprefix('user.').upper()}"):
        return True
    return subprocess.run(["git", "config", key], cwd=ROOT, capture_output=True).returncode == 0
