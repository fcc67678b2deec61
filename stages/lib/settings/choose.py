"""Choices that stay: `python -m stages.lib.settings.choose data=local data.chatdoctor=A.json`, written as for -S.

They go into conf/config.yaml, and params.yaml is composed from it; `git checkout conf/config.yaml` takes them back.
"""

import io
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from dvc.utils.hydra import compose_and_dump, to_hydra_overrides
from dvc.utils.serialize import modify_yaml
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_text, write_text


def choose(choices: list[str], conf: Path, params: Path) -> None:
    """Write groups (`data=local`) and values (`seed=3`) into conf/config.yaml, then compose params.yaml.

    Where a group changes, what was chosen below it before is forgotten. Raises UserError, and leaves both files as they
    were, where Hydra takes a choice for none, or an experiment that was chosen before decides otherwise.
    """
    file = conf / "config.yaml"
    before = read_text(file)
    try:
        composed(choices, conf)  # Hydra knows which groups and keys there are
        with modify_yaml(file) as config:
            for choice in to_hydra_overrides(choices):
                enter(config, choice, conf)
        again = [choice.lstrip("+") for choice in choices]
        if composed(again, conf) != composed([], conf):
            raise UserError("an experiment is chosen there, which decides otherwise; take it out of the defaults first")
        compose([], conf, params)
    except (HydraException, OmegaConfBaseException, UserError) as error:
        write_text(file, before)
        raise UserError(f"{file} stays as it is: {' '.join(str(error).split())}") from error


def composed(choices: list[str], conf: Path) -> str:
    """What params.yaml would be with these choices for -S."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):  # no run goes by it
        params = Path(folder) / paths.PARAMS.name
        compose(choices, conf, params)
        return read_text(params)


def compose(choices: list[str], conf: Path, params: Path) -> None:
    """Write params.yaml as `dvc exp run` does."""
    conf = conf.absolute()
    compose_and_dump(params, str(conf), None, "config", str(conf / "plugins"), choices)


def enter(config: dict[str, Any], choice: Override, conf: Path) -> None:
    """Enter one choice: a group among the defaults, a value below them."""
    name = choice.key_or_group
    if choice.is_delete():
        raise UserError(f"{choice.input_line} takes something away, expected KEY=VALUE")
    if not (conf / name).is_dir():
        *sections, key = name.split(".")
        for section in sections:
            config = config.setdefault(section, {})
        config[key] = choice.value()
        return
    defaults = config["defaults"]
    # A group within a group is in that one's defaults; an experiment is in none.
    key = f"override {name}" if "/" in name else name
    known = next((entry for entry in defaults if isinstance(entry, dict) and key in entry), None)
    if known:
        known[key] = choice.value()
    else:  # Hydra wants overrides behind everything but our own values
        first = next(at for at, entry in enumerate(defaults) if entry == "_self_" or "override" in str(entry))
        defaults.insert(defaults.index("_self_") if "/" in name else first, {key: choice.value()})
    config.pop(name, None)


if __name__ == "__main__":
    try:
        choose(sys.argv[1:], paths.CONF, paths.PARAMS)
    except UserError as error:
        sys.exit(f"choose: {error}")
