"""Merge what was trained into its 16-bit base, from safetensors to safetensors, some rows at a time."""

import json
import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, write_json
from stages.lib.core.resources import require_disk, require_memory
from stages.lib.model import weights
from stages.lib.model.weights import Stored

PREFIX = "base_model.model."
ROWS = ".token_adapter.trainable_tokens_delta"  # PEFT calls them a delta; they are the rows themselves
BAND = 1 << 20  # weights that are worked on at a time: few enough for the processor's cache
MEMORY = 1 << 30  # bytes that it takes, whatever the base's size
ROUNDED_UP = 65520  # from here on, float16 rounds to infinity
# What `_adapted` computes with, then what the adapter's tensors say by themselves or no weight depends on.
COMPUTED = {"r", "lora_alpha", "use_rslora", "use_dora", "trainable_token_indices"}
HARMLESS = {"target_modules", "lora_dropout", "task_type", "inference_mode", "auto_mapping", "peft_version",
            "base_model_name_or_path", "revision"}  # fmt: skip
# PEFT's defaults, of those that are not empty.
PLAIN = {"peft_type": "LORA", "bias": "none", "init_lora_weights": True, "megatron_core": "megatron.core",
         "qalora_group_size": 16}  # fmt: skip
Parts = dict[str, tuple[str, tuple[int, ...]]]  # role -> name and shape of a trained tensor


class Weight(NamedTuple):
    """A weight whose rows are read and merged."""

    name: str
    source: Stored  # of the base, or of a whole model that was trained
    adapter: dict[str, torch.Tensor]  # by role, float32; empty where the adapter leaves the weight alone
    settings: dict[str, Any]  # the adapter's


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write the base with every weight as it was trained: by LoRA, rsLoRA or DoRA, or as a whole model.

    A folder without adapter_config.json holds a whole model, of the base's names and shapes, in any shards.
    Sums are made in float32 and cast once to float16, a band of rows at a time, so that memory depends on no
    tensor's and no shard's size. Everything else of the base's folder (tokenizer, template, generation config
    with its end tokens) is copied. Raises UserError, before anything is written, for a quantised base (merging
    into one ruins the weights), for weights of another base's shapes, for an adapter that does more than is known
    here, and for a disk without room; and while writing, for a base of other bytes than the adapter was trained
    on, and for a weight that float16 cannot hold.
    """
    config = read_json(base / "config.json")
    if "quantization_config" in config:
        raise UserError(f"{base}: the base is quantised, expected 16-bit weights; merge into the unquantised base")
    settings = settings_of(adapter / "adapter_config.json") if (adapter / "adapter_config.json").is_file() else None
    stored = weights.stored_in(base)
    trained = weights.stored_in(adapter)
    parts = {name: _parts(name, one.shape, trained, settings) for name, one in stored.items()}
    _check(base, adapter, trained, parts)
    size = {name: 2 * math.prod(one.shape) for name, one in stored.items()}
    require_disk(target.parent, sum(size.values()), "the merged model")
    require_memory(MEMORY, "merging")

    target.mkdir(parents=True)
    shards = weights.shards_of(base)
    bar = tqdm(total=sum(size.values()), desc="merge", unit="B", unit_scale=True)
    with ThreadPoolExecutor(3) as beside, bar:
        digest = beside.submit(weights.digest, base)
        for shard in shards:
            names = [name for name, one in stored.items() if one.path == shard]
            bands = (band for name in names for band in _bands(stored[name], name, parts[name], trained, settings))
            shapes = {name: stored[name].shape for name in names}
            _write_shard(target / shard.name, shapes, _two_ahead(beside, bands), bar)
        _require_same_base(base, adapter, digest.result())
    _copy_the_rest(base, target)
    config.pop("torch_dtype", None)  # the older name of dtype, which Llama-3's config has
    write_json(target / "config.json", config | {"dtype": "float16"})
    if len(shards) > 1:
        _write_index(base, target, {name: one.path.name for name, one in stored.items()}, sum(size.values()))


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]], merged: Iterator[torch.Tensor], bar: tqdm) -> None:
    """Write the merged rows of a shard's weights, one after the other."""
    with weights.writing(path, shapes, torch.float16) as file:
        for rows in merged:
            file.write(rows.view(torch.uint8).numpy().data)
            bar.update(2 * rows.numel())


def _copy_the_rest(base: Path, target: Path) -> None:
    """Copy the base's files that hold no weights."""
    for path in base.iterdir():
        if path.is_file() and path.suffix not in (".safetensors", *weights.PICKLES):
            shutil.copyfile(path, target / path.name)


def _write_index(base: Path, target: Path, shard_of: dict[str, str], total_size: int) -> None:
    """Write the base's index with the merged weights' size in bytes."""
    original = read_json(base / weights.INDEX)
    metadata = original.get("metadata", {}) | {"total_size": total_size}
    write_json(target / weights.INDEX, original | {"metadata": metadata, "weight_map": shard_of})


def _require_same_base(base: Path, adapter: Path, digest: str) -> None:
    if not (adapter / weights.BASE).is_file():  # trained elsewhere
        return
    expected = read_json(adapter / weights.BASE)["sha256"]
    if digest != expected:
        raise _foreign(adapter, f"{adapter / weights.BASE} has sha256 {expected}, {base} has {digest}")


def _foreign(adapter: Path, reason: str) -> UserError:
    return UserError(f"{adapter}: trained on another base: {reason}; train on this one with `dvc repro train`")


def settings_of(path: Path) -> dict[str, Any]:
    """An adapter's settings; raises UserError for one that the merged weights depend on in a way not known here.

    One that is empty, has PEFT's default or is not there changes nothing.
    """
    settings = {"use_rslora": False, "use_dora": False} | read_json(path)
    for name, value in settings.items():
        if name not in COMPUTED | HARMLESS and value and value != PLAIN.get(name):
            raise UserError(f"{path}: {name} is {json.dumps(value)}, expected a plain LoRA, rsLoRA or DoRA adapter")
    return settings


def _parts(name: str, shape: tuple[int, ...], trained: dict[str, Stored], settings: dict[str, Any] | None) -> Parts:
    """What belongs to a weight of the base: by its role, the name and the shape that it must have."""
    if settings is None:
        return {"whole": (name, shape)}
    module = PREFIX + name.removesuffix(".weight")
    if f"{module}.lora_A.weight" in trained:
        (outputs, inputs), r = shape, settings["r"]
        parts = {"A": (f"{module}.lora_A.weight", (r, inputs)), "B": (f"{module}.lora_B.weight", (outputs, r))}
        return parts | ({"magnitude": (f"{module}.lora_magnitude_vector", (outputs,))} if settings["use_dora"] else {})
    if (rows := module + ROWS) in trained:
        return {"rows": (rows, (len(row_ids(module, settings)), shape[1]))}
    return {}


def scale_of(settings: dict[str, Any]) -> float:
    """What B · A is multiplied by.

    lora_alpha / r (Hu et al. 2021, LoRA, arXiv:2106.09685, section 4.1) or lora_alpha / √r (Kalajdzievski 2023, rsLoRA,
    arXiv:2312.03732).
    """
    r = settings["r"]
    return settings["lora_alpha"] / (math.sqrt(r) if settings["use_rslora"] else r)


def row_ids(module: str, settings: dict[str, Any]) -> list[int]:
    """The rows of a module's matrix that an adapter trains."""
    return settings["trainable_token_indices"][module.rsplit(".", 1)[-1]]


def _check(base: Path, adapter: Path, trained: dict[str, Stored], parts: dict[str, Parts]) -> None:
    """Raise UserError unless every part is there in its shape, and everything that was trained is a part."""
    wanted = {name: shape for of_weight in parts.values() for name, shape in of_weight.values()}
    for name, shape in wanted.items():
        if name not in trained:
            raise _foreign(adapter, f"it has no {name}")
        if trained[name].shape != shape:
            raise _foreign(adapter, f"{name} has shape {trained[name].shape}, expected {shape}")
    if strange := set(trained) - set(wanted):
        raise _foreign(adapter, f"{base} has no place for {min(strange)}")


def _two_ahead(pool: ThreadPoolExecutor, tasks: Iterator[Callable]) -> Iterator[torch.Tensor]:
    """What the tasks return, in order, while the next two are under way."""
    waiting: deque = deque()
    for task in tasks:
        waiting.append(pool.submit(task))
        if len(waiting) > 2:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _bands(
    stored: Stored, name: str, parts: Parts, trained: dict[str, Stored], settings: dict[str, Any] | None
) -> Iterator[Callable[[], torch.Tensor]]:
    """For each band of rows of a weight, what reads and merges it."""
    source = trained[parts["whole"][0]] if "whole" in parts else stored
    adapter = {role: weights.read(trained[part]).float() for role, (part, _) in parts.items() if role != "whole"}
    weight = Weight(name, source, adapter, settings or {})
    count, width = stored.shape[0], math.prod(stored.shape[1:])
    step = max(1, BAND // width)
    for first in range(0, count, step):
        yield partial(_merged, weight, first, min(first + step, count))


def _merged(weight: Weight, first: int, last: int) -> torch.Tensor:
    """Rows `first` to before `last` of a weight as it was trained, float16."""
    rows = weights.read(weight.source, first, last).float()
    if weight.adapter:
        rows = _adapted(weight, rows, first)
    least, most = rows.aminmax()
    if not (least > -ROUNDED_UP and most < ROUNDED_UP):  # no comparison holds of NaN
        raise UserError(f"{weight.source.path}: {weight.name} does not fit into float16 after merging")
    return rows.half()


def _adapted(weight: Weight, rows: torch.Tensor, first: int) -> torch.Tensor:
    """Float32 rows of a weight, from row `first` on, with their adapter or their trained token rows.

    W + s · B · A, where s is `scale_of` the settings. DoRA then scales each row, which belongs to one output, to its
    trained magnitude (Liu et al. 2024, arXiv:2402.09353, equation 5).
    """
    adapter = weight.adapter
    here = slice(first, first + len(rows))
    if "A" in adapter:
        rows.addmm_(adapter["B"][here], adapter["A"], alpha=scale_of(weight.settings))
        if "magnitude" in adapter:
            rows *= (adapter["magnitude"][here] / torch.linalg.vector_norm(rows, dim=1))[:, None]
    else:
        ids = row_ids(weight.name.removesuffix(".weight"), weight.settings)
        for i, row in zip(ids, adapter["rows"], strict=True):
            if first <= i < here.stop:
                rows[i - first] = row
    return rows
