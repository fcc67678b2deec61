"""The shape of the whole of params.yaml, which the config stage alone reads. No defaults: values live only in conf/."""

from typing import NamedTuple

from stages.lib.settings.data import Data
from stages.lib.settings.evaluate import Evaluate
from stages.lib.settings.export import Export
from stages.lib.settings.model import Model
from stages.lib.settings.template import Template
from stages.lib.settings.track import Track
from stages.lib.settings.train import Train


class Config(NamedTuple):
    """Every section."""

    data: Data
    model: Model
    template: Template
    train: Train
    export: Export
    evaluate: Evaluate
    track: Track
    seed: int
    conf_digest: str
