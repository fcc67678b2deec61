"""The shape of the `evaluate` section of params.yaml."""

from dataclasses import dataclass

from stages.lib.settings.gates import Gates
from stages.lib.settings.predict import Predict


@dataclass
class Evaluate:
    """Which models are asked, what, and what they must reach."""

    models: dict[str, str]
    compared: list[str]
    predict: Predict
    gates: Gates
