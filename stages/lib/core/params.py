"""The one reader of params.yaml, validated against its schema, and the sections that a stage asks for."""

from functools import reduce
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stages.lib.errors import UserError
from stages.lib.paths import PARAMS
from stages.lib.schema import Config


def load(params: Path = PARAMS) -> Config:
    """Read and validate params.yaml; raises UserError that names the full key of what is wrong."""
    if not params.is_file():
        raise UserError(
            f"{params}: no such file; compose it with `dvc exp run`, or restore it with `git checkout {params}`"
        )
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(params))
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = error.full_key or "(top level)"
        reason = str(error.msg or error).splitlines()[0]
        raise UserError(f"{params}: {key}: {reason}; mend it in conf/ or with -S {key}=…") from error
    except YAMLError as error:
        raise UserError(f"{params}: not valid YAML: {' '.join(str(error).split())}") from error


def section(settings: Config, key: str) -> Any:
    """The value at a dotted key, e.g. `data.prepare`."""
    return reduce(getattr, key.split("."), settings)
