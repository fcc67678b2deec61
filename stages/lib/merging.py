"""Merge a LoRA adapter into a 16-bit base, from safetensors to safetensors."""

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from stages.lib.errors import UserError
from stages.lib.files import read_json, write_json

PREFIX = "base_model.model."


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write the base with W + (lora_alpha / r) · B · A in place of each adapted W, and the trained token rows.

    Sums are made in float32 and cast once to float16. One tensor of one shard is in memory at a time, and
    the shard that is being written. Everything else of the base's folder (tokenizer, template, generation
    config with its end tokens) is copied. Raises UserError for a quantised base, since merging into one
    ruins the weights, and for an adapter of other modules than the base has. Source: Hu et al. 2021,
    LoRA, arXiv:2106.09685, section 4.1.
    """
    config, settings = read_json(base / "config.json"), read_json(adapter / "adapter_config.json")
    if "quantization_config" in config:
        raise UserError(f"{base}: the base is quantised, expected 16-bit weights; merge into the unquantised base")
    scale = settings["lora_alpha"] / settings["r"]
    rows = settings["trainable_token_indices"] or {}
    deltas = load_file(adapter / "adapter_model.safetensors")
    shards = sorted(base.glob("*.safetensors"))
    target.mkdir(parents=True)
    index, used = {}, set()
    for shard in tqdm(shards, desc="merge", unit="shard"):
        tensors = {}
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 — a safe_open handle is no mapping
                weight, keys = _merged(name, file.get_tensor(name).float(), deltas, scale, rows)
                tensors[name] = weight.to(torch.float16)
                if not tensors[name].isfinite().all():
                    raise UserError(f"{shard}: {name} does not fit into float16 after merging")
                index[name] = shard.name
                used |= keys
        save_file(tensors, target / shard.name, metadata={"format": "pt"})
    if unknown := sorted(set(deltas) - used):
        raise UserError(f"{adapter}: the adapter was trained on another base: {base} has no place for {unknown[0]}")
    for path in base.iterdir():
        if path.suffix != ".safetensors" and path.is_file():
            shutil.copyfile(path, target / path.name)
    write_json(target / "config.json", config | {"dtype": "float16"})
    if len(shards) > 1:
        original = json.loads((base / "model.safetensors.index.json").read_text())
        write_json(target / "model.safetensors.index.json", original | {"weight_map": index})


def _merged(
    name: str, weight: torch.Tensor, deltas: dict[str, torch.Tensor], scale: float, rows: dict[str, list[int]]
) -> tuple[torch.Tensor, set[str]]:
    """The merged float32 weight, and the adapter's keys that went into it."""
    module = PREFIX + name.removesuffix(".weight")
    a, b = f"{module}.lora_A.weight", f"{module}.lora_B.weight"
    token_rows = f"{module}.token_adapter.trainable_tokens_delta"
    if a in deltas:
        return weight.addmm_(deltas[b].float(), deltas[a].float(), alpha=scale), {a, b}
    if token_rows in deltas:
        # PEFT calls them a delta; they are the rows themselves.
        indices = torch.tensor(rows[module.rsplit(".", 1)[-1]])
        return weight.index_copy_(0, indices, deltas[token_rows].float()), {token_rows}
    return weight, set()
