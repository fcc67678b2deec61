"""The shape of the `evaluate` section of params.yaml."""

from dataclasses import dataclass

from stages.lib.core.checks import one_of
from stages.lib.settings.gates import Gates
from stages.lib.settings.model_names import EXTRA
from stages.lib.settings.predict import Predict


@dataclass
class Evaluate:
    """Which models are asked, what, and what they must reach."""

    extra: list[str]
    models: dict[str, str]
    compared: list[str]
    predict: Predict
    gates: Gates

    def __post_init__(self) -> None:
        for name in self.extra:
            one_of("evaluate.extra", name, EXTRA)
