"""config: fail when conf/ was edited after params.yaml was composed from it, or any value in it is impossible."""

from pathlib import Path

from stages.lib.core import paths
from stages.lib.core.checks import check, one_of
from stages.lib.core.composition import require_composed
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_yaml, write_text
from stages.lib.core.stage import run
from stages.lib.data.preparation.boilerplate import require_known
from stages.lib.data.sources.pins import require_pinned
from stages.lib.evaluation.metrics.measures import MEASURES
from stages.lib.settings import model_names
from stages.lib.settings.config import Config


def main(config: Config, conf: Path, params: Path, marker: Path) -> None:
    """Write the constant marker that every entry stage depends on, before which no stage removes its outs.

    Raises UserError where conf/ is newer, or for a value that no stage could use. Each section was validated by its
    own schema when it was read.
    """
    require_composed(config.conf_digest, conf, params)
    if unread := sorted(set(read_yaml(params, dict)) - set(Config._fields)):
        raise UserError(f"{params}: {unread[0]}: no such section, expected {', '.join(Config._fields)}; see conf/")
    check("seed", config.seed, 0 <= config.seed < 1 << 32, "0 to 4294967295")  # what NumPy takes
    for source in config.data.sources:
        require_pinned(source)
    require_known(config.data.prepare.boilerplate)
    for name in config.evaluate.gates.better:
        one_of("evaluate.gates.better", name, tuple(MEASURES))
    if config.model.scratch and config.template.chat_template is None:
        raise UserError(
            f"template.{config.template.name}: a model from scratch has no chat template of its own; "
            "choose one with `-S template=llama3` or `-S template=chatml`"
        )
    types, extra = config.export.types, config.evaluate.extra
    for key, composed, expected in (
        ("export.verified", config.export.verified, model_names.verified(types)),
        ("evaluate.models", config.evaluate.models, model_names.evaluated(types, extra)),
        ("evaluate.compared", config.evaluate.compared, model_names.report_slots(types, extra)),
    ):
        check(key, composed, composed == expected, f"{expected}, as export.types and evaluate.extra decide")
    write_text(marker, "params.yaml was composed from conf/\n")


if __name__ == "__main__":
    run(main, sections=Config._fields, paths=(paths.CONF, paths.PARAMS, paths.CONFIG_MARKER))
