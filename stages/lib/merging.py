"""Merge what was trained into its 16-bit base, from safetensors to safetensors."""

import json
import math
import shutil
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from stages.lib.errors import UserError
from stages.lib.files import read_json, write_json

PREFIX = "base_model.model."
# What `_adapted` computes with, then what the adapter's tensors say by themselves or no weight depends on.
COMPUTED = {"r", "lora_alpha", "use_rslora", "use_dora", "trainable_token_indices"}
HARMLESS = {"target_modules", "lora_dropout", "task_type", "inference_mode", "auto_mapping", "peft_version",
            "base_model_name_or_path", "revision"}  # fmt: skip


class Learnt:
    """The tensors of a trained folder, each read from its shard when it is taken, and taken once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = {}
        for shard in sorted(folder.glob("*.safetensors")):
            with safe_open(shard, framework="pt") as file:
                self.shards |= dict.fromkeys(file.keys(), shard)
        if not self.shards:
            raise UserError(f"{folder}: no weights there; train them with `dvc repro train`, or `dvc pull` them")

    def __contains__(self, name: str) -> bool:
        return name in self.shards

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """A tensor in float32; raises UserError where it is missing or of another shape."""
        if name not in self:
            raise self.foreign(f"it has no {name}")
        with safe_open(self.shards.pop(name), framework="pt") as file:
            tensor = file.get_tensor(name).float()
        if tensor.shape != shape:
            raise self.foreign(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
        return tensor

    def foreign(self, reason: str) -> UserError:
        return UserError(f"{self.folder}: trained on another base: {reason}; train on this one with `dvc repro train`")


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write the base with every weight as it was trained: by LoRA, rsLoRA or DoRA, or as a whole model.

    A folder without adapter_config.json holds a whole model, of the base's names and shapes, in any shards.
    Sums are made in float32 and cast once to float16. One tensor of one shard is in memory at a time, and
    the shard that is being written. Everything else of the base's folder (tokenizer, template, generation
    config with its end tokens) is copied. Raises UserError for a quantised base, since merging into one
    ruins the weights, for weights trained on another base, for an adapter that does more than is known
    here, and for a weight that float16 cannot hold.
    """
    config = read_json(base / "config.json")
    if "quantization_config" in config:
        raise UserError(f"{base}: the base is quantised, expected 16-bit weights; merge into the unquantised base")
    settings = _settings(adapter / "adapter_config.json") if (adapter / "adapter_config.json").is_file() else None
    learnt = Learnt(adapter)
    shards = sorted(base.glob("*.safetensors"))
    target.mkdir(parents=True)
    index = {}
    for shard in tqdm(shards, desc="merge", unit="shard"):
        tensors = {}
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 — a safe_open handle is no mapping
                if settings is None:
                    weight = learnt.take(name, *file.get_slice(name).get_shape())
                else:
                    weight = _adapted(name, file.get_tensor(name).float(), learnt, settings)
                tensors[name] = weight.to(torch.float16)
                if not tensors[name].isfinite().all():
                    raise UserError(f"{shard}: {name} does not fit into float16 after merging")
                index[name] = shard.name
        save_file(tensors, target / shard.name, metadata={"format": "pt"})
    if learnt.shards:
        raise learnt.foreign(f"{base} has no place for {min(learnt.shards)}")
    for path in base.iterdir():
        if path.suffix != ".safetensors" and path.is_file():
            shutil.copyfile(path, target / path.name)
    config.pop("torch_dtype", None)  # the older name of dtype, which Llama-3's config has
    write_json(target / "config.json", config | {"dtype": "float16"})
    if len(shards) > 1:
        original = json.loads((base / "model.safetensors.index.json").read_text())
        write_json(target / "model.safetensors.index.json", original | {"weight_map": index})


def _settings(path: Path) -> dict:
    """An adapter's settings; raises UserError for one that the merged weights depend on in a way not known here.

    One that is empty, has PEFT's default or is not there changes nothing.
    """
    settings, defaults = read_json(path), LoraConfig().to_dict()
    for name, value in settings.items():
        if name not in COMPUTED | HARMLESS and value and value != defaults.get(name):
            raise UserError(f"{path}: {name} is {json.dumps(value)}, expected a plain LoRA, rsLoRA or DoRA adapter")
    return defaults | settings


def _adapted(name: str, weight: torch.Tensor, learnt: Learnt, settings: dict) -> torch.Tensor:
    """The float32 weight with its adapter or its trained token rows, or as it is where it has neither.

    W + s · B · A, where s is lora_alpha / r (Hu et al. 2021, LoRA, arXiv:2106.09685, section 4.1) or
    lora_alpha / √r (Kalajdzievski 2023, rsLoRA, arXiv:2312.03732). DoRA then scales each row, which belongs
    to one output, to the length that was learnt (Liu et al. 2024, arXiv:2402.09353, equation 5).
    """
    module = PREFIX + name.removesuffix(".weight")
    a, b, rows = f"{module}.lora_A.weight", f"{module}.lora_B.weight", f"{module}.token_adapter.trainable_tokens_delta"
    if a in learnt:
        outputs, inputs = weight.shape
        r = settings["r"]
        scale = settings["lora_alpha"] / (math.sqrt(r) if settings["use_rslora"] else r)
        weight.addmm_(learnt.take(b, outputs, r), learnt.take(a, r, inputs), alpha=scale)
        if settings["use_dora"]:
            length = learnt.take(f"{module}.lora_magnitude_vector", outputs)
            weight *= (length / torch.linalg.vector_norm(weight, dim=1))[:, None]
    elif rows in learnt:
        # PEFT calls them a delta; they are the rows themselves.
        indices = torch.tensor(settings["trainable_token_indices"][module.rsplit(".", 1)[-1]])
        weight.index_copy_(0, indices, learnt.take(rows, len(indices), weight.shape[1]))
    return weight
