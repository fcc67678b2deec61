"""The adapter alone as a GGUF, to be laid over a base GGUF: `llama-server -m BASE.gguf --lora ADAPTER.gguf`."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import torch

from stages.lib.core.files import write_json, write_text
from stages.lib.export import llamacpp
from stages.lib.export.merging import PREFIX, ROWS, row_ids, scale_of, settings_of
from stages.lib.model import weights
from stages.lib.model.weights import Stored


def convert_adapter(base: Path, adapter: Path, method: str, target: Path, metadata: dict[str, str]) -> None:
    """Write an adapter's GGUF; an empty file, and a line in the log, where the method has none.

    DoRA scales whole rows of the base and a full fine-tuning changes all of it: neither is a sum with a matrix of
    low rank, which is all that llama.cpp adds to a base.
    """
    if method not in ("lora", "rslora"):
        logging.info("%s stays empty: what train.method=%s trains cannot be laid over a base", target, method)
        write_text(target, "")
        return
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / "adapter"  # the converter writes its folder's name into the file
        plain.mkdir()
        settings = settings_of(adapter / "adapter_config.json")
        alpha = scale_of(settings) * settings["r"]  # llama.cpp scales by alpha / rank, of each matrix
        lora = _as_lora(weights.stored_in(base), weights.stored_in(adapter), settings, alpha)
        weights.save(plain / "adapter_model.safetensors", lora)
        write_json(plain / "adapter_config.json", settings | {"lora_alpha": alpha})
        llamacpp.convert_adapter(base, plain, target, metadata)


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
