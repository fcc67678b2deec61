"""How much memory a training takes: the sum of what its weights, its layers and its loss take at the worst moment.

Measured: `python -m bench.memory`. Sizes are bytes.
"""

import torch

from stages.lib.settings.train import Train
from stages.lib.training import shapes
from stages.lib.training.loss import chunk_rows
from stages.lib.training.memory_layer import made_besides, saved_by_a_layer
from stages.lib.training.memory_sizes import FLOAT32, Training

NF4 = 1 / 2 + 1 / 64 + 4 / (64 * 256)  # bytes a weight: 4 bits, a byte for each 64, a float for each 64 × 256
# Bytes of the optimiser's states a weight. Paged ones are on the GPU only while there is room.
STATES = {"adamw_torch_fused": 8, "adamw_8bit": 2 + 8 / 256, "paged_adamw_8bit": 0}


def estimate(config: dict, train: Train, gpu: bool) -> dict[str, int]:
    """Bytes at the moment that takes most, by part and in `total`; of one GPU, or of the machine.

    Every packed sequence is taken as full and every token as labelled. `activations` are what the backward pass needs
    and what it makes for a while; `logits` what the loss makes; `embedding` what is as large as the embedding: its
    gradient, which PEFT makes whole where just a few rows are trained.
    """
    training = Training(config, train, gpu)
    lasting = {"weights": weights(training), "adapter": adapter(training), "optimizer": optimizer(training)}
    moments = (at_the_loss(training), in_the_last_layer(training), at_the_embedding(training))
    parts = max((lasting | moment for moment in moments), key=lambda parts: sum(parts.values()))
    parts = of_all_processes(parts, training)
    return parts | {"total": sum(parts.values())}


# What lasts as long as the training does.


def weights(training: Training) -> int:
    """The base's weights."""
    return training.layers * linear_weights(training) + shapes.unquantized(training.config) * training.kept


def linear_weights(training: Training) -> int:
    """The linear weights of a layer; in 8 bits each output has a float32 scale."""
    sides = shapes.of_layer(training.config).values()
    size = sum(outputs * inputs for outputs, inputs in sides)
    scales = FLOAT32 * sum(outputs for outputs, _ in sides)
    sizes = {"none": size * training.kept, "8bit": size + scales, "4bit": int(size * NF4)}
    return sizes[training.train.quantization]


def adapter(training: Training) -> int:
    """The adapter weights."""
    return 0 if training.full else FLOAT32 * training.trainable


def optimizer(training: Training) -> int:
    """The optimiser's states."""
    return int(STATES[training.train.optim] * training.trainable)


# The moments at which most memory is taken; one of them takes most of all.


def at_the_loss(training: Training) -> dict[str, int]:
    """The loss: the last norm, and the labelled vectors and their gradients."""
    last_norm = training.tokens * training.width * FLOAT32 + training.stream
    # Where the output matrix is trained: its gradient and an addend.
    matrix = 2 * training.vocabulary if training.full else 0
    activations = saved_before_the_loss(training) + last_norm + 2 * training.stream
    return moment(training.waiting, activations, logits=loss_chunk(training) + matrix)


def in_the_last_layer(training: Training) -> dict[str, int]:
    """The backward pass of the last layer, with two gradients between layers."""
    activations = saved_in_a_layer(training) + made_besides(training) + 2 * training.stream
    return moment(training.waiting, activations, logits=training.vocabulary if training.full else 0)


def at_the_embedding(training: Training) -> dict[str, int]:
    """The end of the backward pass. The forward pass begins with as much: there PEFT copies the embedding."""
    in_place = training.full and not training.waiting
    return moment(training.gradients, training.stream, embedding=0 if in_place else training.vocabulary)


def moment(gradients: int, activations: int, logits: int = 0, embedding: int = 0) -> dict[str, int]:
    """The parts of a moment, in the order in which they are said."""
    return {"gradients": gradients, "activations": activations, "logits": logits, "embedding": embedding}


def loss_chunk(training: Training) -> int:
    """What the loss makes of one chunk of logits, and what is still there of the one before."""
    vocabulary = training.config["vocab_size"]
    tokens = min(training.tokens, chunk_rows(vocabulary, training.gpu))
    # Of a logit: itself, its float32 and its probability; of the chunk before, probability and gradient.
    new, old = (2 + 4 + 4, 4 + 2) if training.kept == 2 else (4 + 4, 4)
    return tokens * vocabulary * (new + (old if tokens < training.tokens else 0))


def saved_before_the_loss(training: Training) -> int:
    """What the forward pass has saved of all layers for the backward pass."""
    if training.train.gradient_checkpointing:
        return inputs_of_layers(training) + training.casts
    return training.layers * saved_by_a_layer(training) + training.casts


def saved_in_a_layer(training: Training) -> int:
    """What is saved while the backward pass is in the last layer: with checkpointing, all of one layer at a time."""
    if training.train.gradient_checkpointing:
        return inputs_of_layers(training) + saved_by_a_layer(training) + training.casts // training.layers
    return saved_before_the_loss(training)


def inputs_of_layers(training: Training) -> int:
    """What checkpointing keeps: each layer's input, where it does not wait in the memory of the CPU."""
    return 0 if training.train.activation_offload and training.gpu else training.layers * training.stream


def of_all_processes(parts: dict[str, int], training: Training) -> dict[str, int]:
    """The parts of one of several processes; on a CPU, of all that share the machine's memory.

    DDP lays a second copy of the gradients out to send them. FSDP cuts weights, gradients and states in equal
    shares, and has two layers whole: the one at work and the next one. 4-bit weights are no numbers that it could cut:
    each process has all of them.
    """
    launch = training.train.launch
    if launch.strategy == "single":
        return parts
    here = launch.processes or max(1, torch.cuda.device_count())
    if launch.strategy == "ddp":
        parts = parts | {"gradients": 2 * parts["gradients"]}
    else:
        whole = training.layers * linear_weights(training) if training.train.quantization == "4bit" else 0
        at_work = 0 if whole else 2 * linear_weights(training)
        parts = parts | {"weights": parts["weights"] - whole}
        shared = ("weights", "adapter", "optimizer", "gradients")
        parts = parts | {name: parts[name] // (here * launch.nodes) for name in shared}
        parts["weights"] += whole + at_work
    return parts if training.gpu else {name: here * size for name, size in parts.items()}
