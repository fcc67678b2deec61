"""Which stages the page shows the cost of."""

from pathlib import Path
from typing import Any

from stages.lib.core.files import read_yaml


def stage_names(pipeline: Path, params: Path) -> list[str]:
    """The stages of dvc.yaml but the last, in its order, those of a matrix or foreach as stage@item.

    So are the files below `.cost/` called (core/costs.py). The last stage is the report itself, which has not ended.
    """
    settings = read_yaml(params, dict)
    names: list[str] = []
    for stage, spec in read_yaml(pipeline, dict)["stages"].items():
        over = spec.get("foreach") or next(iter(spec.get("matrix", {}).values()), None)
        if over is None:
            names.append(stage)
        else:
            items: Any = settings
            for key in over.removeprefix("${").removesuffix("}").split("."):
                items = items[key]
            names += [f"{stage}@{item}" for item in items]
    return names[:-1]
