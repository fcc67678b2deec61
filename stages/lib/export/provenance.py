"""Where a GGUF comes from, as strings in its metadata: decided by the inputs alone, so that its bytes are too."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from stages.lib.data_schema import Data
from stages.lib.files import read_json
from stages.lib.gguf_keys import PREFIX
from stages.lib.schema import Model, Template
from stages.lib.tensors import BASE
from stages.lib.train_schema import Train

NOTICE = "Research material, not a medical device: it gives no medical advice."


def metadata(
    data: Data, model: Model, template: Template, train: Train, seed: int, llama_cpp: str, folders: list[Path]
) -> dict[str, str]:
    """Keys and values for the GGUF of a model that was made from `folders` with these settings.

    `folders` are what DVC tracks: data/raw (whose sources.json lists the datasets), data/prepared (the split),
    models/adapter (whose base.json has the base's hash) and models/merged.
    """
    raw, adapter = folders[0], folders[2]
    keys = {"notice": NOTICE, "llama_cpp": llama_cpp}
    for source in read_json(raw / "sources.json"):
        name = f"dataset.{source['name']}"
        keys[f"{name}.sha256"] = source["sha256"]
        if source["kind"] != "file":  # the path of one's own file says nothing to others
            keys[f"{name}.source"] = " ".join(filter(None, (source["repo"], source["revision"], source["path"])))
        keys[f"{name}.licence"] = source["licence"]
    keys["base.name"] = model.name
    keys["base.source"] = f"{model.hub.repo} {model.hub.revision}" if model.hub else "trained from scratch"
    if (adapter / BASE).is_file():
        keys["base.sha256"] = read_json(adapter / BASE)["sha256"]
    settings = {"prepare": asdict(data.prepare), "model": asdict(model), "template": asdict(template), "seed": seed}
    settings["train"] = {key: value for key, value in asdict(train).items() if key != "launch"}  # where, not what
    text = json.dumps(settings, sort_keys=True)
    keys["config.sha256"] = hashlib.sha256(text.encode()).hexdigest()
    keys |= {f"dvc.{folder.as_posix()}": dvc_md5(folder) for folder in folders}
    return {"general.license": model.licence} | {PREFIX + key: value for key, value in keys.items()}


def dvc_md5(path: Path) -> str:
    """The hash that dvc.lock has of a file, or of a folder: MD5 over the list of its files' hashes."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = (one for one in path.rglob("*") if one.is_file())
    listed = [{"md5": dvc_md5(one), "relpath": one.relative_to(path).as_posix()} for one in files]
    listed.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"
