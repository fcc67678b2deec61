"""base: the model that is tuned, with its tokenizer and chat template."""

import logging
from pathlib import Path

from stages.lib.base import description, hub, local
from stages.lib.base.gguf import from_gguf
from stages.lib.base.scratch import from_scratch
from stages.lib.base.template import install_template
from stages.lib.core import paths
from stages.lib.core.files import replacing, write_json
from stages.lib.core.stage import run
from stages.lib.settings.model import Model
from stages.lib.settings.template import Template


def main(model: Model, template: Template, seed: int, prepared: Path, base: Path, metrics_file: Path) -> None:
    """Take the base from where it is, or train the tiny one on the training split, then set the template."""
    with replacing(base) as folder:
        if model.hub:
            hub.take_over(model.hub, folder)
        elif model.folder:
            local.take_over(model.folder, folder)
        elif model.gguf:
            with local.gguf_file(model.gguf) as file:
                from_gguf(file, folder)
        elif model.scratch:
            from_scratch(model.scratch, prepared / "train.jsonl", folder, seed)
        install_template(folder, template)
        about = description.of(folder)
    write_json(metrics_file, about)
    logging.info("%s: %s", model.name, about)


if __name__ == "__main__":
    run(
        main,
        sections=("model", "template", "seed"),
        paths=(paths.PREPARED, paths.BASE, paths.METRICS / "base.json"),
    )
