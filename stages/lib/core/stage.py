"""How a stage starts: config sections and paths are bound, a user's mistake becomes one sentence."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from stages.lib import config
from stages.lib.costs import measured
from stages.lib.errors import UserError
from stages.lib.paths import COST


def run(main: Callable, sections: tuple[str, ...] = (), paths: tuple[Path, ...] = (), items: list[str] = ()) -> None:
    """Call `main(*config sections, *paths, *items)`; a user's mistake ends with its text and exit status 1.

    `sections` are dotted keys of params.yaml and must equal the stage's `params:` in dvc.yaml (tested);
    `items` are the matrix items DVC passes on the command line.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    name = Path(sys.argv[0]).stem
    try:
        settings = config.load()
        with measured(COST, "@".join([name, *items[:1]])):
            main(*(config.section(settings, key) for key in sections), *paths, *items)
    except UserError as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:  # a full disk, a folder that may not be written
        sys.exit(f"{name}: {error}; nothing half-written was kept: mend that and run the same command")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; the same command takes it up again")
