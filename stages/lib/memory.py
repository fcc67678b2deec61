"""How much memory a training takes, known before it starts."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch

from stages.lib import shapes
from stages.lib.errors import UserError
from stages.lib.loss import CHUNK_BYTES
from stages.lib.train_schema import Train

GIB = 1 << 30
NF4 = 1 / 2 + 1 / 64 + 4 / (64 * 256)  # bytes a weight: 4 bits, a byte for each 64, a float for each 64 × 256


def require(config: dict, train: Train, free: int) -> None:
    """Log what the training will take; raise UserError where that is more than the `free` bytes, or r is too high.

    `config` is the base's config.json; every setting of `train` is decided (`machine.resolved`). The error
    names the settings that would fit.
    """
    if train.method != "full":
        shapes.check_rank(config, train.lora)
    gpu = torch.cuda.is_available()
    parts = estimate(config, train, gpu)
    listed = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if name != "total")
    logging.info("memory: %.2f GiB estimated (%s), %.2f GiB free", parts["total"] / GIB, listed, free / GIB)
    if parts["total"] > free:
        raise UserError(
            f"training with train.method={train.method} and train.quantization={train.quantization} takes about "
            f"{parts['total'] / GIB:.2f} GiB, but {free / GIB:.2f} GiB are free; {advice(config, train, free, gpu)}"
        )


def advice(config: dict, train: Train, free: int, gpu: bool) -> str:
    """The smallest change of settings with which the training fits into `free` bytes, as options of dvc."""
    changes = []
    for change in savings(train):
        changes.append(change)
        if _total(config, train, changes, gpu) <= free:
            break
    else:
        least = _total(config, train, changes, gpu)
        return (
            f"no setting fits: even with {_options(changes)} it takes {least / GIB:.2f} GiB; take a smaller base "
            "(model), shorter rows (train.max_length) or "
            + ("train.method=lora" if train.method == "full" else "more memory")
        )
    for change in changes[:-1]:  # what a later one made needless
        others = [other for other in changes if other is not change]
        if _total(config, train, others, gpu) <= free:
            changes = others
    return f"it fits ({_total(config, train, changes, gpu) / GIB:.2f} GiB) with: {_options(changes)}"


def savings(train: Train) -> Iterator[dict]:
    """Changes of settings that save memory, the cheapest first; each leaves the effective batch as it is."""
    if not train.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    rows, batches = train.per_device_train_batch_size, train.gradient_accumulation_steps
    while rows % 2 == 0:
        rows, batches = rows // 2, batches * 2
        yield {"per_device_train_batch_size": rows, "gradient_accumulation_steps": batches}
    if train.quantization == "none" and train.method != "full":
        yield {"quantization": "8bit"}
    if train.quantization != "4bit" and train.method != "full":
        yield {"quantization": "4bit"}
    if train.optim == "adamw_torch_fused":
        yield {"optim": "adamw_8bit" if train.method == "full" else "paged_adamw_8bit"}
    if not train.activation_offload:
        yield {"gradient_checkpointing": True, "activation_offload": True}


def _total(config: dict, train: Train, changes: list[dict], gpu: bool) -> int:
    return estimate(config, replace(train, **{k: v for change in changes for k, v in change.items()}), gpu)["total"]


def _options(changes: list[dict]) -> str:
    settings = {name: value for change in changes for name, value in change.items()}
    return " ".join(f"-S train.{name}={str(value).lower()}" for name, value in settings.items())


def estimate(config: dict, train: Train, gpu: bool) -> dict[str, int]:
    """Bytes at the moment that takes most, by part and in `total`; of one GPU, or of the machine.

    Every row is taken as full and every token as labelled. `activations` are what the backward pass needs and what
    it makes for a while; `logits` what the loss makes; `embedding` what PEFT makes for the rows of the
    embedding that are trained: a copy of it in the forward pass, as many gradients at the end of the backward pass.
    """
    hidden, layers, words = config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]
    tokens = train.per_device_train_batch_size * train.max_length
    full = train.method == "full"
    computed = 2 if train.precision == "bf16" else 4  # bytes of a factor of a matrix product
    kept = 4 if full else computed  # bytes of a frozen weight, and of what goes from layer to layer
    weights, trained = weights_of(config, train, kept), trained_of(config, train)
    casts = 2 * trained if computed == 2 else 0  # autocast's copies of the weights that learn
    matrix = words * hidden * kept
    layer, during = layer_of(config, train, gpu, computed, kept)
    stream = tokens * hidden * kept
    if train.gradient_checkpointing:
        entries = 0 if train.activation_offload and gpu else layers * stream
        saved, one, casts_of_one = entries, layer, casts // layers
    else:
        saved, one, casts_of_one = layers * layer, 0, casts
    last_norm = tokens * hidden * 4 + stream
    rows = min(tokens, max(1, CHUNK_BYTES // (4 * words)))
    # Of a logit: itself, its float32 and its probability, and of the chunk before the probability and its gradient.
    new, old = (2 + 4 + 4, 4 + 2) if kept == 2 else (4 + 4, 4)
    chunk = rows * words * (new + (old if rows < tokens else 0))
    matrix_gradient = 2 * matrix if full else 0
    accumulated = 4 * trained if train.gradient_accumulation_steps > 1 else 0
    moments = [
        {"gradients": accumulated, "activations": saved + last_norm + 2 * stream + casts,
         "logits": chunk + matrix_gradient, "embedding": 0},
        {"gradients": accumulated, "activations": saved + one + during + 2 * stream + casts_of_one,
         "logits": matrix_gradient // 2, "embedding": 0},
        {"gradients": 4 * trained, "activations": stream, "logits": 0,
         "embedding": matrix if accumulated or not full else 0},
    ]  # fmt: skip
    optimizer = {"adamw_torch_fused": 8, "adamw_8bit": 2 + 8 / 256, "paged_adamw_8bit": 0}[
        train.optim
    ]  # bytes a weight
    lasting = {"weights": weights, "adapter": 0 if full else 4 * trained, "optimizer": int(optimizer * trained)}
    parts = max((lasting | moment for moment in moments), key=lambda parts: sum(parts.values()))
    parts = shared(parts, train, gpu, (weights - 2 * matrix) // layers)
    return parts | {"total": sum(parts.values())}


def shared(parts: dict[str, int], train: Train, gpu: bool, layer: int) -> dict[str, int]:
    """The parts of one of several processes; on a CPU, of all that share the machine's memory.

    DDP lays a second copy of the gradients out to send them. FSDP cuts weights, gradients and moments in equal
    shares and brings together two layers (of `layer` bytes) at a time.
    """
    if train.launch.strategy == "single":
        return parts
    here = train.launch.processes or max(1, torch.cuda.device_count())
    if train.launch.strategy == "ddp":
        parts = parts | {"gradients": 2 * parts["gradients"]}
    else:
        share = {
            name: parts[name] // (here * train.launch.nodes)
            for name in ("weights", "adapter", "optimizer", "gradients")
        }
        parts = parts | share | {"weights": share["weights"] + 2 * layer}
    return parts if gpu else {name: here * size for name, size in parts.items()}


def weights_of(config: dict, train: Train, kept: int) -> int:
    """Bytes of the base, its linear layers quantised or not."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    matrices = 1 if config.get("tie_word_embeddings") else 2
    others = (matrices * config["vocab_size"] + 2 * layers + 1) * hidden * kept
    linear = [(rows * columns, rows) for rows, columns in shapes.of_layer(config).values()]
    of = {"none": lambda size, rows: size * kept, "8bit": lambda size, rows: size + 4 * rows,
          "4bit": lambda size, rows: size * NF4}[train.quantization]  # fmt: skip
    return others + layers * int(sum(of(*sides) for sides in linear))


def trained_of(config: dict, train: Train) -> int:
    """Weights that learn; the few rows of a vocabulary's new tokens are left out."""
    if train.method == "full":
        return weights_of(config, train, 4) // 4
    matrices = shapes.adapted(config, train.lora).values()
    lengths = sum(rows for rows, _ in matrices) if train.method == "dora" else 0
    return config["num_hidden_layers"] * (train.lora.r * sum(sum(sides) for sides in matrices) + lengths)


def layer_of(config: dict, train: Train, gpu: bool, computed: int, kept: int) -> tuple[int, int]:
    """Bytes that one layer saves for its backward pass, and those it takes besides at its worst, around down_proj."""
    hidden, middle = config["hidden_size"], config["intermediate_size"]
    sides = shapes.of_layer(config)
    query, key = sides["q_proj"][0], sides["k_proj"][0]
    full, quantized = train.method == "full", train.quantization != "none"
    targets = sides if full else shapes.adapted(config, train.lora)
    inputs = {name: columns for name, (_, columns) in targets.items()}
    # Matrices that read the same vector share it; where the CPU's attention computes in float32, o_proj's is a copy.
    distinct = {name[0] if name in ("o_proj", "down_proj") else name in ("gate_proj", "up_proj"): columns
                for name, columns in inputs.items() if name != "o_proj" or not gpu}  # fmt: skip
    tokens = train.per_device_train_batch_size * train.max_length
    token = 2 * 4 * hidden * (2 if full else 1)  # both norms work in float32; trained ones keep their result too
    token += 3 * computed * middle  # gate, its silu, up
    token += (computed if gpu else 4) * 2 * (query + key) + 4 * config["num_attention_heads"]
    if full:
        token += computed * sum((inputs if computed < kept else distinct).values())  # autocast copies for each matrix
        # The gradient of down_proj's input, and of its weight in the factors' type and in float32.
        return tokens * token, computed * tokens * middle + (computed + 4) * hidden * middle
    token += computed * train.lora.r * len(inputs)
    dropout, held = train.lora.lora_dropout > 0, train.quantization == "8bit"
    if dropout:
        token += (computed + (1 if gpu else computed)) * sum(inputs.values())  # what is left, and which that is
    if held or not dropout:
        token += computed * sum(distinct.values())  # bitsandbytes' 8-bit product holds its input, whoever else does
    # Two gradients of down_proj's input, through base and adapter, of which one takes the place of an input.
    besides = computed * tokens * middle * (2 if held and not dropout else 1)
    besides += computed * hidden * middle if quantized else 0  # the weight in the factors' type
    inside = tokens * middle * (3 if dropout else 6) if held and gpu else 0  # the input in 16 and 8 bits, its outliers
    return tokens * token, max(besides, inside)
