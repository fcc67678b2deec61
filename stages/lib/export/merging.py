"""Merge what was trained into its 16-bit base, from safetensors to safetensors, some rows at a time."""

import json
import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from stages.lib import tensors
from stages.lib.errors import UserError
from stages.lib.files import read_json, write_json
from stages.lib.space import require_disk, require_memory
from stages.lib.tensors import Stored

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
Parts = dict[str, tuple[str, tuple[int, ...]]]


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
    stored, learnt = tensors.stored_in(base), tensors.stored_in(adapter)
    parts = {name: _parts(name, one.shape, learnt, settings) for name, one in stored.items()}
    _check(base, adapter, learnt, parts)
    size = {name: 2 * math.prod(one.shape) for name, one in stored.items()}
    require_disk(target.parent, sum(size.values()), "the merged model")
    require_memory(MEMORY, "merging")

    target.mkdir(parents=True)
    shards = tensors.shards_of(base)
    bar = tqdm(total=sum(size.values()), desc="merge", unit="B", unit_scale=True)
    with ThreadPoolExecutor(3) as beside, bar:
        found = beside.submit(tensors.digest, base)
        for shard in shards:
            names = [name for name, one in stored.items() if one.path == shard]
            bands = (band for name in names for band in _bands(stored[name], name, parts[name], learnt, settings))
            with tensors.writing(target / shard.name, {name: stored[name].shape for name in names}) as file:
                for merged in _two_ahead(beside, bands):
                    file.write(memoryview(merged.view(torch.uint8).numpy()).cast("B"))
                    bar.update(2 * merged.numel())
        _require_same_base(base, adapter, found.result())
    for path in base.iterdir():
        if path.is_file() and path.suffix not in (".safetensors", *tensors.PICKLES):
            shutil.copyfile(path, target / path.name)
    config.pop("torch_dtype", None)  # the older name of dtype, which Llama-3's config has
    write_json(target / "config.json", config | {"dtype": "float16"})
    if len(shards) > 1:
        original = read_json(base / tensors.INDEX)
        metadata = original.get("metadata", {}) | {"total_size": sum(size.values())}
        places = {name: one.path.name for name, one in stored.items()}
        write_json(target / tensors.INDEX, original | {"metadata": metadata, "weight_map": places})


def _require_same_base(base: Path, adapter: Path, found: str) -> None:
    if not (adapter / tensors.BASE).is_file():  # trained elsewhere
        return
    expected = read_json(adapter / tensors.BASE)["sha256"]
    if found != expected:
        raise _foreign(adapter, f"{adapter / tensors.BASE} has sha256 {expected}, {base} has {found}")


def _foreign(adapter: Path, reason: str) -> UserError:
    return UserError(f"{adapter}: trained on another base: {reason}; train on this one with `dvc repro train`")


def settings_of(path: Path) -> dict:
    """An adapter's settings; raises UserError for one that the merged weights depend on in a way not known here.

    One that is empty, has PEFT's default or is not there changes nothing.
    """
    settings = {"use_rslora": False, "use_dora": False} | read_json(path)
    for name, value in settings.items():
        if name not in COMPUTED | HARMLESS and value and value != PLAIN.get(name):
            raise UserError(f"{path}: {name} is {json.dumps(value)}, expected a plain LoRA, rsLoRA or DoRA adapter")
    return settings


def _parts(name: str, shape: tuple[int, ...], learnt: dict[str, Stored], settings: dict | None) -> Parts:
    """What belongs to a weight of the base: by its role, the name and the shape that it must have."""
    if settings is None:
        return {"whole": (name, shape)}
    module = PREFIX + name.removesuffix(".weight")
    if f"{module}.lora_A.weight" in learnt:
        (outputs, inputs), r = shape, settings["r"]
        parts = {"A": (f"{module}.lora_A.weight", (r, inputs)), "B": (f"{module}.lora_B.weight", (outputs, r))}
        return parts | ({"length": (f"{module}.lora_magnitude_vector", (outputs,))} if settings["use_dora"] else {})
    if (rows := module + ROWS) in learnt:
        return {"rows": (rows, (len(row_ids(module, settings)), shape[1]))}
    return {}


def scale_of(settings: dict) -> float:
    """What B · A is multiplied by: lora_alpha / r (Hu et al. 2021, LoRA, arXiv:2106.09685, section 4.1) or
    lora_alpha / √r (Kalajdzievski 2023, rsLoRA, arXiv:2312.03732).
    """
    r = settings["r"]
    return settings["lora_alpha"] / (math.sqrt(r) if settings["use_rslora"] else r)


def row_ids(module: str, settings: dict) -> list[int]:
    """The rows of a module's matrix that an adapter trains."""
    return settings["trainable_token_indices"][module.rsplit(".", 1)[-1]]


def _check(base: Path, adapter: Path, learnt: dict[str, Stored], parts: dict[str, Parts]) -> None:
    """Raise UserError unless every part is there in its shape, and everything that was trained is a part."""
    wanted = {name: shape for of_weight in parts.values() for name, shape in of_weight.values()}
    for name, shape in wanted.items():
        if name not in learnt:
            raise _foreign(adapter, f"it has no {name}")
        if learnt[name].shape != shape:
            raise _foreign(adapter, f"{name} has shape {learnt[name].shape}, expected {shape}")
    if strange := set(learnt) - set(wanted):
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
    stored: Stored, name: str, parts: Parts, learnt: dict[str, Stored], settings: dict | None
) -> Iterator[Callable[[], torch.Tensor]]:
    """For each band of rows of a weight, what reads and merges it."""
    count, width = stored.shape[0], math.prod(stored.shape[1:])
    step = max(1, BAND // width)
    source = learnt[parts["whole"][0]] if "whole" in parts else stored
    had = {role: tensors.read(learnt[part]).float() for role, (part, _) in parts.items() if role != "whole"}
    for first in range(0, count, step):
        yield partial(_merged, source, first, min(first + step, count), name, had, settings)


def _merged(
    source: Stored, first: int, last: int, name: str, had: dict[str, torch.Tensor], settings: dict | None
) -> torch.Tensor:
    """Rows of a weight as it was trained, float16."""
    band = tensors.read(source, first, last).float()
    if had:
        band = _adapted(band, first, name, had, settings)
    least, most = band.aminmax()
    if not (least > -ROUNDED_UP and most < ROUNDED_UP):  # no comparison holds of NaN
        raise UserError(f"{source.path}: {name} does not fit into float16 after merging")
    return band.half()


def _adapted(rows: torch.Tensor, first: int, name: str, had: dict[str, torch.Tensor], settings: dict) -> torch.Tensor:
    """Float32 rows of a weight, from row `first` on, with their adapter or their trained token rows.

    W + s · B · A, where s is `scale_of` the settings. DoRA then scales each row, which belongs to one output, to
    the length that was learnt (Liu et al. 2024, arXiv:2402.09353, equation 5).
    """
    here = slice(first, first + len(rows))
    if "A" in had:
        rows.addmm_(had["B"][here], had["A"], alpha=scale_of(settings))
        if "length" in had:
            rows *= (had["length"][here] / torch.linalg.vector_norm(rows, dim=1))[:, None]
    else:
        for i, row in zip(row_ids(name.removesuffix(".weight"), settings), had["rows"], strict=True):
            if first <= i < here.stop:
                rows[i - first] = row
    return rows
