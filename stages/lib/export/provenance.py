"""Where a GGUF comes from, as strings in its metadata: decided by the inputs alone, so that its bytes are too."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from stages.lib.core.files import read_json
from stages.lib.export.gguf_keys import PREFIX
from stages.lib.model.weights import BASE, DEQUANTISED_FROM
from stages.lib.settings.data import Data
from stages.lib.settings.model import Model
from stages.lib.settings.template import Template
from stages.lib.settings.train import Train

NOTICE = "Research material, not a medical device: it gives no medical advice."


class Settings(NamedTuple):
    """The sections of params.yaml that decide what a model becomes."""

    data: Data
    model: Model
    template: Template
    train: Train
    seed: int


class Ancestors(NamedTuple):
    """What DVC tracks and a GGUF is made from."""

    raw: Path  # whose sources.json lists the datasets
    prepared: Path  # the split
    adapter: Path  # whose base.json has the base's hash
    merged: Path


def metadata(settings: Settings, ancestors: Ancestors, llama_cpp: str) -> dict[str, str]:
    """Keys and values for the GGUF of a model that was made from `ancestors` with these settings by a `llama_cpp`."""
    keys = {"notice": NOTICE, "llama_cpp": llama_cpp}
    for source in read_json(ancestors.raw / "sources.json"):
        name = f"dataset.{source['name']}"
        keys[f"{name}.sha256"] = source["sha256"]
        if source["kind"] != "file":  # the path of one's own file says nothing to others
            keys[f"{name}.source"] = " ".join(filter(None, (source["repo"], source["revision"], source["path"])))
        keys[f"{name}.licence"] = source["licence"]
    model = settings.model
    keys["base.name"] = model.name
    keys["base.source"] = model.source()
    if quantised := read_json(ancestors.merged / "config.json").get(DEQUANTISED_FROM):
        keys["base.dequantised_from"] = quantised
    if (ancestors.adapter / BASE).is_file():
        keys["base.sha256"] = read_json(ancestors.adapter / BASE)["sha256"]
    keys["config.sha256"] = config_sha256(settings)
    keys |= {f"dvc.{folder.as_posix()}": dvc_md5(folder) for folder in ancestors}
    return {"general.license": model.licence} | {PREFIX + key: value for key, value in keys.items()}


def config_sha256(settings: Settings) -> str:
    """SHA-256 of the settings that decide the model; where it was trained, `train.launch`, is not among them."""
    chosen: dict[str, Any] = {"prepare": asdict(settings.data.prepare)}
    chosen |= {"model": asdict(settings.model), "template": asdict(settings.template), "seed": settings.seed}
    chosen["train"] = {key: value for key, value in asdict(settings.train).items() if key != "launch"}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def dvc_md5(path: Path) -> str:
    """The hash that dvc.lock has of a file, or of a folder: MD5 over the list of its files' hashes."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = (one for one in path.rglob("*") if one.is_file())
    listed = [{"md5": dvc_md5(one), "relpath": one.relative_to(path).as_posix()} for one in files]
    listed.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"
