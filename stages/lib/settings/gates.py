"""The shape of `evaluate.gates` in params.yaml: what a model must reach."""

from dataclasses import dataclass

from stages.lib.core.checks import at_least, check


@dataclass
class Gates:
    """What the report holds the models to."""

    strict: bool
    better: list[str]
    quantized_points: float
    quantized_perplexity: float
    stopped: float

    def __post_init__(self) -> None:
        at_least("evaluate.gates", self, quantized_points=0, quantized_perplexity=0)
        check("evaluate.gates.stopped", self.stopped, 0 <= self.stopped <= 1, "a share, 0 to 1")
