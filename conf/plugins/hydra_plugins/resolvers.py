"""Hydra loads this module whenever it composes conf/; it registers the resolvers that conf/ uses."""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT))  # DVC composes in a process of its own, which knows nothing of this project's modules

from stages.lib.core import composition, paths  # noqa: E402
from stages.lib.core.files import read_yaml  # noqa: E402
from stages.lib.data.sources.pins import local_sha256  # noqa: E402
from stages.lib.settings import model_names  # noqa: E402


def conf_digest(*, _root_: DictConfig) -> str:
    """The digest of conf/. Composition asks for it once: the place to say by which choices the run will go."""
    chosen = composition.choices(_root_)
    params = ROOT / paths.PARAMS
    before = composition.choices(read_yaml(params, dict)) if params.is_file() else chosen
    print(composition.in_words(chosen, before), flush=True)
    return composition.conf_digest(ROOT / paths.CONF)


def file_sha256(path: str) -> str:
    """What pins a file, or those of a folder or pattern, taken at composition; empty where there is none."""
    return local_sha256(ROOT / Path(path).expanduser()) if path else ""


def model_pin(path: str) -> str:
    """The hash of a model folder or GGUF, taken at composition; empty where there is none, which `base` reports."""
    if not path:
        return ""
    from stages.lib.base.pinning import pin_of  # imports torch

    return pin_of(ROOT / Path(path).expanduser(), ROOT / ".downloads" / "hashes.json")


for resolver in (conf_digest, file_sha256, model_pin):
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
for name, made in (
    ("evaluated_models", model_names.evaluated),
    ("report_slots", model_names.report_slots),
    ("verified", model_names.verified),
):
    # OmegaConf takes a container from a resolver only as one of its own.
    OmegaConf.register_new_resolver(name, lambda *lists, made=made: OmegaConf.create(made(*lists)), replace=True)
