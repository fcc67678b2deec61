"""The adapter alone as a GGUF, to be laid over a base GGUF: `llama-server -m BASE.gguf --lora ADAPTER.gguf`."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import torch

from stages.lib.core.files import read_json, write_json, write_text
from stages.lib.export import llamacpp
from stages.lib.export.merging import PREFIX, ROWS, row_ids, scale_of, settings_of
from stages.lib.model import weights
from stages.lib.model.weights import Stored


def convert_adapter(base: Path, adapter: Path, method: str, target: Path, metadata: dict[str, str]) -> None:
    """Write an adapter's GGUF; an empty file, and a line in the log, where llama.cpp could not lay it over a base.

    It adds matrices of low rank. DoRA scales whole rows of the base and a full fine-tuning changes all of it. Trained
    token rows are of low rank too, but for one matrix that is both embedding and output matrix (tied embeddings)
    llama.cpp has one pair of factors, and the two uses need it the other way round.
    """
    trained = weights.stored_in(adapter)
    if reason := _impossible(base, trained, method):
        logging.info("%s stays empty: %s cannot be laid over a base", target, reason)
        write_text(target, "")
        return
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / "adapter"  # the converter writes its folder's name into the file
        plain.mkdir()
        settings = settings_of(adapter / "adapter_config.json")
        alpha = scale_of(settings) * settings["r"]  # llama.cpp scales by alpha / rank, of each matrix
        lora = _as_lora(weights.stored_in(base), trained, settings, alpha)
        weights.save(plain / "adapter_model.safetensors", lora)
        write_json(plain / "adapter_config.json", settings | {"lora_alpha": alpha})
        llamacpp.convert_adapter(base, plain, target, metadata)


def _impossible(base: Path, trained: dict[str, Stored], method: str) -> str:
    """What of an adapter llama.cpp cannot lay over a base; empty where it can lay all of it."""
    if method not in ("lora", "rslora"):
        return f"what train.method={method} trains"
    tied = read_json(base / "config.json").get("tie_word_embeddings", False)
    if tied and any(name.endswith(ROWS) for name in trained):
        return "trained token rows of tied embeddings"
    return ""


def _as_lora(
    base: dict[str, Stored], trained: dict[str, Stored], settings: dict[str, Any], alpha: float
) -> dict[str, torch.Tensor]:
    """The adapter's tensors, its trained token rows as matrices of low rank too, which is exact.

    n rows of a matrix (vocabulary, width) that change by `delta` (n, width) are a product of rank n: a column of zeros
    and a one for each row, times `delta`. The embedding, which is looked up, has the factors the other way round.
    """
    made = {}
    for name, stored in trained.items():
        if not name.endswith(ROWS):
            made[name] = weights.read(stored)
            continue
        module = name.removesuffix(ROWS)
        weight = base[f"{module.removeprefix(PREFIX)}.weight"]
        ids = row_ids(module, settings)
        before = torch.cat([weights.read(weight, i, i + 1) for i in ids]).float()
        delta = (weights.read(stored).float() - before) * len(ids) / alpha
        chosen = torch.zeros(len(ids), weight.shape[0])
        chosen[range(len(ids)), ids] = 1
        if module.endswith("embed_tokens"):
            made |= {f"{module}.lora_embedding_A": chosen, f"{module}.lora_embedding_B": delta.T.contiguous()}
        else:
            made |= {f"{module}.lora_A.weight": delta, f"{module}.lora_B.weight": chosen.T.contiguous()}
    return made
