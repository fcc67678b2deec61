"""The shape of the `track` section of params.yaml: Weights & Biases."""

from dataclasses import dataclass

from stages.lib.core.checks import one_of


@dataclass
class Track:
    """Where the run of a training goes."""

    mode: str
    project: str

    def __post_init__(self) -> None:
        one_of("track.mode", self.mode, ("offline", "online", "disabled"))
