"""config: fail when conf/ was edited after params.yaml was composed from it."""

import importlib.util
from pathlib import Path

from stages.lib import paths
from stages.lib.errors import UserError
from stages.lib.files import write_text
from stages.lib.stage import run


def main(conf_digest: str, conf: Path, marker: Path) -> None:
    """Write the constant marker that every entry stage depends on; raises UserError where conf/ is newer."""
    found = digest_of(conf)
    if found != conf_digest:
        raise UserError(
            f"{conf}/ has changed since params.yaml was composed from it (conf_digest is {conf_digest[:12]}, "
            f"expected {found[:12]}); compose it anew and run with `dvc exp run`, adding the -S choices you want"
        )
    write_text(marker, "params.yaml was composed from conf/\n")


def digest_of(conf: Path) -> str:
    """The digest as the Hydra resolver of the same name computes it at composition."""
    spec = importlib.util.spec_from_file_location("resolvers", conf / "plugins/hydra_plugins/resolvers.py")
    resolvers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(resolvers)
    return resolvers.conf_digest(conf)


if __name__ == "__main__":
    run(main, sections=("conf_digest",), paths=(paths.CONF, paths.CONFIG_MARKER))
