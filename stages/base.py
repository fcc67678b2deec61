"""base: the model that is tuned, with its tokenizer and chat template."""

from pathlib import Path

from stages.lib import paths
from stages.lib.base_model import download, from_scratch, install_template
from stages.lib.files import replacing
from stages.lib.schema import Model, Template
from stages.lib.stage import run


def main(model: Model, template: Template, seed: int, prepared: Path, base: Path) -> None:
    """Download the pinned hub revision, or train the tiny model on the training split, then set the template."""
    with replacing(base) as folder:
        if model.hub:
            download(model.hub, folder)
        else:
            from_scratch(model.scratch, prepared / "train.jsonl", folder, seed)
        install_template(folder, template)


if __name__ == "__main__":
    run(main, sections=("model", "template", "seed"), paths=(paths.PREPARED, paths.BASE))
