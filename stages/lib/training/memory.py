"""How much memory a training takes, known before any weight is loaded. Measured: `python -m bench.memory`."""

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
# Bytes of the optimiser's states a weight. Paged ones are on the GPU only while there is room.
STATES = {"adamw_torch_fused": 8, "adamw_8bit": 2 + 8 / 256, "paged_adamw_8bit": 0}


def require(config: dict, train: Train, free: int) -> None:
    """Log what the training will take; raise UserError where that is more than `free` bytes, or train.lora.r too high.

    `config` is the base's config.json; every setting of `train` is decided (`machine.resolved`). The error
    names the settings that would fit.
    """
    if train.method != "full":
        shapes.check_rank(config, train.lora)
    gpu = torch.cuda.is_available()
    parts = estimate(config, train, gpu)
    listed = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if name != "total" and size)
    logging.info("memory: about %.2f GiB (%s) of %.2f GiB free", parts["total"] / GIB, listed, free / GIB)
    if parts["total"] > free:
        raise UserError(
            f"training takes about {parts['total'] / GIB:.2f} GiB (train.method={train.method}, train.quantization="
            f"{train.quantization}, {train.per_device_train_batch_size} rows of {train.max_length} tokens at a time), "
            f"but {free / GIB:.2f} GiB are free; {advice(config, train, free, gpu)}"
        )


def advice(config: dict, train: Train, free: int, gpu: bool) -> str:
    """The smallest change of settings with which the training fits into `free` bytes, as options of `dvc exp run`."""

    def together(changes: list[dict]) -> dict:
        return {name: value for change in changes for name, value in change.items()}

    def total(changes: list[dict]) -> int:
        return estimate(config, replace(train, **together(changes)), gpu)["total"]

    changes, possible = [], list(savings(train, gpu))
    while possible and (not changes or total(changes) > free):
        changes.append(possible.pop(0))
    fits = total(changes) <= free
    for change in changes[:-1] if fits else []:  # what a later one made needless
        fewer = [other for other in changes if other is not change]
        if total(fewer) <= free:
            changes = fewer
    new = {name: value for name, value in together(changes).items() if value != getattr(train, name)}
    options = " ".join(f"-S train.{name}={str(value).lower()}" for name, value in new.items())
    size = f"{total(changes) / GIB:.2f} GiB"
    if fits:
        return f"it fits ({size}) with {options}"
    smaller = "train.method=lora" if train.method == "full" else "a smaller base"
    least = f"even with {options} it takes {size}" if options else "none takes less"
    return f"no setting fits: {least}; take shorter rows (train.max_length), {smaller} or another machine"


def savings(train: Train, gpu: bool) -> Iterator[dict]:
    """Changes of settings that save memory, the one that costs least first; the effective batch stays as it is."""
    if not train.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    rows, batches = train.per_device_train_batch_size, train.gradient_accumulation_steps
    while rows % 2 == 0:
        rows, batches = rows // 2, batches * 2
        yield {"per_device_train_batch_size": rows, "gradient_accumulation_steps": batches}
    if train.method != "full":
        kinds = ("none", "8bit", "4bit")
        yield from ({"quantization": kind} for kind in kinds[kinds.index(train.quantization) + 1 :])
    if train.optim == "adamw_torch_fused":
        yield {"optim": "paged_adamw_8bit" if gpu else "adamw_8bit"}
    if gpu and not train.activation_offload:
        yield {"gradient_checkpointing": True, "activation_offload": True}


def estimate(config: dict, train: Train, gpu: bool) -> dict[str, int]:
    """Bytes at the moment that takes most, by part and in `total`; of one GPU, or of the machine.

    Every row is taken as full and every token as labelled. `activations` are what the backward pass needs and what
    it makes for a while; `logits` what the loss makes; `embedding` what is as large as the embedding: its gradient,
    which PEFT makes whole where just a few rows learn.
    """
    layers, full = config["num_hidden_layers"], train.method == "full"
    tokens = train.per_device_train_batch_size * train.max_length
    factor = 2 if train.precision == "bf16" else 4  # bytes of a factor of a matrix product
    kept = 4 if full else factor  # bytes of a weight that is not quantised, and of what goes from layer to layer
    learning = shapes.learning(config, train.method, train.lora)
    casts = 2 * learning if factor == 2 else 0  # autocast's copies of the weights that learn
    words = config["vocab_size"] * config["hidden_size"] * kept
    stream = tokens * config["hidden_size"] * kept
    layer, besides = _layer(config, train, gpu, factor)
    if train.gradient_checkpointing:  # the layers' inputs, and one layer at a time
        inputs = 0 if train.activation_offload and gpu else layers * stream
        before, within = inputs + casts, inputs + layer + casts // layers
    else:
        before = within = layers * layer + casts
    rows = min(tokens, max(1, CHUNK_BYTES // (4 * config["vocab_size"])))
    # Of a logit: itself, its float32 and its probability; of the chunk before, probability and gradient.
    new, old = (2 + 4 + 4, 4 + 2) if kept == 2 else (4 + 4, 4)
    chunk = rows * config["vocab_size"] * (new + (old if rows < tokens else 0))
    waiting = 4 * learning if train.gradient_accumulation_steps > 1 else 0  # gradients of the batches before
    last_norm = tokens * config["hidden_size"] * 4 + stream
    moments = [
        # The loss: the labelled vectors and their gradients; the output matrix's gradient and an addend, if it learns.
        {"gradients": waiting, "activations": before + last_norm + 2 * stream,
         "logits": chunk + (2 * words if full else 0), "embedding": 0},
        # The backward pass of the last layer, with two gradients between layers.
        {"gradients": waiting, "activations": within + besides + 2 * stream,
         "logits": words if full else 0, "embedding": 0},
        # Its end, at the embedding. The forward pass begins with as much: there PEFT copies the embedding.
        {"gradients": 4 * learning, "activations": stream,
         "logits": 0, "embedding": 0 if full and not waiting else words},
    ]  # fmt: skip
    linear = layers * _linear(config, train.quantization, kept)
    lasting = {
        "weights": linear + shapes.unquantized(config) * kept,
        "adapter": 0 if full else 4 * learning,
        "optimizer": int(STATES[train.optim] * learning),
    }
    parts = max((lasting | moment for moment in moments), key=lambda parts: sum(parts.values()))
    parts = _shared(parts, train, gpu, 2 * linear // layers)
    return parts | {"total": sum(parts.values())}


def _linear(config: dict, quantization: str, kept: int) -> int:
    """Bytes of the linear weights of a layer; in 8 bits each output has a float32 scale."""
    sides = shapes.of_layer(config).values()
    size = sum(rows * columns for rows, columns in sides)
    scales = 4 * sum(rows for rows, _ in sides)
    return {"none": size * kept, "8bit": size + scales, "4bit": int(size * NF4)}[quantization]


def _layer(config: dict, train: Train, gpu: bool, factor: int) -> tuple[int, int]:
    """Bytes that a layer saves for its backward pass, and what it makes besides at its worst: around down_proj."""
    hidden, middle, sides = config["hidden_size"], config["intermediate_size"], shapes.of_layer(config)
    full = train.method == "full"
    dropout, held = not full and train.lora.lora_dropout > 0, train.quantization == "8bit"
    targets = sides if full else shapes.adapted(config, train.lora)
    inputs = {name: columns for name, (_, columns) in targets.items()}
    # Matrices that read the same vector share it. o_proj's is saved with attention, but for the CPU's, in float32.
    reads = {"q_proj": "attention", "k_proj": "attention", "v_proj": "attention", "gate_proj": "mlp", "up_proj": "mlp"}
    distinct = {reads.get(name, name): columns for name, columns in inputs.items() if name != "o_proj" or not gpu}
    tokens = train.per_device_train_batch_size * train.max_length
    token = 4 * 2 * hidden * (2 if full else 1)  # the norms work in float32; where they learn their results stay too
    token += factor * 3 * middle  # gate, its silu, up
    query, key = sides["q_proj"][0], sides["k_proj"][0]
    token += (factor if gpu else 4) * 2 * (query + key) + 4 * config["num_attention_heads"]
    weight = hidden * middle
    if full:
        token += factor * sum((inputs if factor == 2 else distinct).values())  # autocast copies it for each matrix
        # The gradients of down_proj's input, and of its weight, as a product and in float32.
        return tokens * token, factor * tokens * middle + (factor + 4) * weight
    token += factor * train.lora.r * len(inputs)
    mask = (1 if gpu else factor) if dropout else 0
    if dropout:
        token += (factor + mask) * sum(inputs.values())  # what is left, and which that is
    if held or not dropout:
        token += factor * sum(distinct.values())  # bitsandbytes' 8-bit product holds its input, whoever else does
    dequantized = factor * weight if train.quantization != "none" else 0
    # Two gradients of down_proj's input, through base and adapter, of which one takes the place of a saved input.
    besides = factor * tokens * middle * (2 if held and not dropout else 1) + dequantized
    # bitsandbytes: the input in 16 and 8 bits, and its outliers.
    inside = tokens * middle * (3 if dropout else 6) if held and gpu else 0
    if train.method == "dora":
        token += 2 * factor * sum(rows for rows, _ in targets.values())  # what the base gave and what the adapter
        # In up_proj: its gradient in float32, two products of it and two more gradients; down_proj's input is gone.
        besides = tokens * middle * ((4 if factor == 2 else 0) + 2 * 4 + 2 * factor - factor - mask)
        inside = 4 * factor * weight + dequantized  # for the lengths: both weights, their sum and its squares
    return tokens * token, max(besides, inside)


def _shared(parts: dict[str, int], train: Train, gpu: bool, gathered: int) -> dict[str, int]:
    """The parts of one of several processes; on a CPU, of all that share the machine's memory.

    DDP lays a second copy of the gradients out to send them. FSDP cuts weights, gradients and states in equal
    shares, and has `gathered` bytes of them whole: the layer at work and the next one.
    """
    if train.launch.strategy == "single":
        return parts
    here = train.launch.processes or max(1, torch.cuda.device_count())
    if train.launch.strategy == "ddp":
        parts = parts | {"gradients": 2 * parts["gradients"]}
    else:
        cut = {
            name: parts[name] // (here * train.launch.nodes)
            for name in ("weights", "adapter", "optimizer", "gradients")
        }
        parts = parts | cut | {"weights": cut["weights"] + gathered}
    return parts if gpu else {name: here * size for name, size in parts.items()}
