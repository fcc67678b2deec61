"""The one reader of params.yaml: a section of it, validated against the type that a stage wants it as."""

from dataclasses import make_dataclass
from functools import cache, reduce
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stages.lib.core.errors import UserError
from stages.lib.core.paths import PARAMS


def load(key: str, annotation: Any, params: Path = PARAMS) -> Any:
    """The value at a dotted key of params.yaml, e.g. `data.prepare`, as a dataclass, list, dict or plain value.

    Only that section is validated: no other one's schema can make a stage fail, or stale. Raises UserError that names
    the full key of what is wrong.
    """
    return load_all({key: annotation}, params)[0]


def load_all(wanted: dict[str, Any], params: Path = PARAMS) -> list[Any]:
    """`load` of several keys, in the order given."""
    if not params.is_file():
        raise UserError(
            f"{params}: no such file; compose it with `dvc exp run`, or restore it with `git checkout {params}`"
        )
    composed = _parsed(params, params.read_text(encoding="utf-8"))
    return [_validated(composed, key, annotation, params) for key, annotation in wanted.items()]


@cache
def _parsed(params: Path, text: str) -> DictConfig:
    try:
        return DictConfig(OmegaConf.create(text))
    except YAMLError as error:
        raise UserError(f"{params}: not valid YAML: {' '.join(str(error).split())}") from error


def _validated(composed: DictConfig, key: str, annotation: Any, params: Path) -> Any:
    names = key.split(".")
    shape, value = annotation, OmegaConf.select(composed, key)
    for name in reversed(names):  # OmegaConf validates the members of dataclasses: errors then name the full key
        shape, value = make_dataclass(name, [(name, shape)]), {name: value}
    try:
        section = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(shape), value))
    except OmegaConfBaseException as error:
        where = error.full_key or key
        reason = str(error.msg or error).splitlines()[0]
        raise UserError(f"{params}: {where}: {reason}; fix it in conf/ or with -S {where}=…") from error
    return reduce(getattr, names, section)
