"""What the report reads: the settings of the run, and all that was measured in it."""

from pathlib import Path
from typing import NamedTuple

from stages.lib.core import paths
from stages.lib.core.files import read_json, read_jsonl
from stages.lib.evaluation.metrics.exams import Guessing, guessing
from stages.lib.settings.data import Data
from stages.lib.settings.export import Export
from stages.lib.settings.gates import Gates
from stages.lib.settings.model import Model
from stages.lib.settings.model_names import TUNED
from stages.lib.settings.train import Train


class RunSettings(NamedTuple):
    """The sections of params.yaml that the report tells of."""

    data: Data
    model: Model
    template: str
    train: Train
    export: Export
    models: dict[str, str]  # name -> path below models/
    gates: Gates
    seed: int
    conf_digest: str


class Results(NamedTuple):
    """What the stages measured; the keys are names of models, in the order in which they are shown."""

    scores: dict[str, dict]
    predictions: dict[str, list[dict]]
    guessing: Guessing
    verifications: dict[str, dict]  # of the GGUFs
    data: dict  # metrics/data.json
    base: dict  # metrics/base.json
    tokens: dict  # metrics/tokenize.json
    training: dict  # metrics/train.json


def read_results(metrics: Path, models: list[str], ggufs: list[str]) -> Results:
    """The results below metrics/; raises UserError where one is missing."""
    predictions = {name: [row for _, row in read_jsonl(paths.predictions(metrics, name))] for name in models}
    return Results(
        scores={name: read_json(paths.scores(metrics, name)) for name in models},
        predictions=predictions,
        guessing=guessing(predictions[TUNED]),
        verifications={name: read_json(paths.verification(metrics, name)) for name in ggufs},
        data=read_json(metrics / "data.json"),
        base=read_json(metrics / "base.json"),
        tokens=read_json(metrics / "tokenize.json"),
        training=read_json(metrics / "train.json"),
    )
