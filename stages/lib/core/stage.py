"""How a stage starts: its settings and paths are bound, a user's mistake becomes one sentence."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any, get_type_hints

from stages.lib.core import composition, params
from stages.lib.core.costs import measured
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_yaml
from stages.lib.core.paths import CONF, COST, PARAMS


def run(main: Callable, sections: Sequence[str] = (), paths: Sequence[Path] = (), items: Sequence[str] = ()) -> None:
    """Call `main` with the sections of params.yaml, then the paths, then the items, in the order of its parameters.

    `sections` are dotted keys and must equal the stage's `params:` in dvc.yaml (tested); each is validated as the
    type that `main` has for it. `items` are the matrix items that DVC passes on the command line. A parameter whose
    type is a NamedTuple takes as many of them as it has fields. What `main` returns, a dict or None, was measured on
    this machine and goes into the stage's cost. The first line says by which choices it runs. A user's mistake ends
    with its text and exit status 1; a stage that runs alone looks at conf/ itself, which `config` does for the others.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    name = Path(sys.argv[0]).stem
    try:
        settings = params.load_all(dict(zip(sections, _annotations(main), strict=False)))
        if PARAMS.is_file():
            composed = read_yaml(PARAMS, dict)
            chosen = composition.choices(composed)
            logging.info(composition.in_words(chosen, before=chosen))
            if composition.runs_alone():
                composition.require_composed(str(composed.get("conf_digest")), CONF, PARAMS)
        with measured(COST, "@".join([name, *items[:1]])) as rates:
            rates |= main(*_grouped(main, iter([*settings, *paths, *items]))) or {}
    except UserError as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:  # a full disk, a folder that may not be written
        sys.exit(f"{name}: {error}; nothing half-written was kept: fix that and run the same command")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; the same command resumes it")


def _annotations(main: Callable) -> Iterator[Any]:
    """The type of each value that `main` takes, those in a NamedTuple one by one."""
    for parameter in signature(main).parameters.values():
        if hasattr(parameter.annotation, "_fields"):
            yield from get_type_hints(parameter.annotation).values()
        else:
            yield parameter.annotation


def _grouped(main: Callable, values: Iterator[Any]) -> Iterator[Any]:
    """The values as `main` takes them: those of a NamedTuple together."""
    for parameter in signature(main).parameters.values():
        kind = parameter.annotation
        yield kind(*islice(values, len(kind._fields))) if hasattr(kind, "_fields") else next(values)
