"""base: the model that is tuned, with its tokenizer and chat template."""

from pathlib import Path

from stages.lib.base.hub import download
from stages.lib.base.scratch import from_scratch
from stages.lib.base.template import install_template
from stages.lib.core import paths
from stages.lib.core.files import replacing
from stages.lib.core.stage import run
from stages.lib.settings.model import Model
from stages.lib.settings.template import Template


def main(model: Model, template: Template, seed: int, prepared: Path, base: Path) -> None:
    """Download the pinned hub revision, or train the tiny model on the training split, then set the template."""
    with replacing(base) as folder:
        if model.hub:
            download(model.hub, folder)
        elif model.scratch:
            from_scratch(model.scratch, prepared / "train.jsonl", folder, seed)
        install_template(folder, template)


if __name__ == "__main__":
    run(main, sections=("model", "template", "seed"), paths=(paths.PREPARED, paths.BASE))
