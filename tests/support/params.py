"""params.yaml: read whole, composed from conf/ as DVC does it."""

from pathlib import Path
from typing import get_type_hints

from dvc.utils.hydra import compose_and_dump

from stages.lib.core import params
from stages.lib.settings.config import Config
from support.settings import ROOT


def read(path: Path = ROOT / "params.yaml") -> Config:
    """Every section, validated."""
    return Config(*params.load_all(get_type_hints(Config), path))


def composed(folder: Path, *overrides: str) -> Config:
    """The configuration as DVC composes it from conf/ into the folder."""
    path = folder / "params.yaml"
    compose_and_dump(path, str(ROOT / "conf"), None, "config", str(ROOT / "conf/plugins"), list(overrides))
    return read(path)
