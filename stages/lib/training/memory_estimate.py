"""How much memory a training takes: the sum of what its weights, its layers and its loss take at the worst moment.

Measured: `python -m bench.memory`. Sizes are bytes. Constants of bytes an element: 4 of float32, 2 of bfloat16 and
float16, 1 of int8.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from stages.lib.settings.train import Train
from stages.lib.training import shapes
from stages.lib.training.loss import CHUNK_BYTES

FLOAT32 = 4
NF4 = 1 / 2 + 1 / 64 + 4 / (64 * 256)  # bytes a weight: 4 bits, a byte for each 64, a float for each 64 × 256
# Bytes of the optimiser's states a weight. Paged ones are on the GPU only while there is room.
STATES = {"adamw_torch_fused": 8, "adamw_8bit": 2 + 8 / 256, "paged_adamw_8bit": 0}
# Matrices that read the same vector share it: the names of what they read.
READS = {"q_proj": "attention", "k_proj": "attention", "v_proj": "attention", "gate_proj": "mlp", "up_proj": "mlp"}


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


@dataclass(frozen=True)
class Training:
    """A training, and the sizes that everything else is made of."""

    config: dict  # the base's config.json
    train: Train
    gpu: bool

    @property
    def full(self) -> bool:
        """Whether the whole model is trained."""
        return self.train.method == "full"

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return self.config["num_hidden_layers"]

    @property
    def width(self) -> int:
        """Elements of the vector of a token that goes from layer to layer."""
        return self.config["hidden_size"]

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.train.per_device_train_batch_size * self.train.max_length

    @property
    def factor(self) -> int:
        """Bytes of a factor of a matrix product."""
        return 2 if self.train.precision == "bf16" else FLOAT32

    @property
    def kept(self) -> int:
        """Bytes of a weight that is not quantised, and of an element of what goes from layer to layer."""
        return FLOAT32 if self.full else self.factor

    @cached_property
    def trainable(self) -> int:
        """Trainable parameters."""
        return shapes.trainable_parameters(self.config, self.train.method, self.train.lora)

    @property
    def gradients(self) -> int:
        """The gradients of all trainable parameters."""
        return FLOAT32 * self.trainable

    @property
    def waiting(self) -> int:
        """The gradients of the micro-batches before this one."""
        return self.gradients if self.train.gradient_accumulation_steps > 1 else 0

    @property
    def casts(self) -> int:
        """Autocast's bfloat16 copies of the trainable parameters."""
        return 2 * self.trainable if self.factor == 2 else 0

    @property
    def stream(self) -> int:
        """The vectors of all tokens, as they go from one layer to the next."""
        return self.tokens * self.width * self.kept

    @property
    def vocabulary(self) -> int:
        """The embedding; as large are the output matrix and the gradient of either."""
        return self.config["vocab_size"] * self.width * self.kept


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
    tokens = min(training.tokens, max(1, CHUNK_BYTES // (FLOAT32 * vocabulary)))
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


# What a layer saves for its backward pass, and what it makes besides.


def saved_by_a_layer(training: Training) -> int:
    """What a layer saves for its backward pass."""
    of_token = norms(training) + attention(training) + mlp(training)
    of_token += inputs_of_matrices(training) if training.full else adapted_matrices(training)
    return training.tokens * of_token


def norms(training: Training) -> int:
    """Of a token: two norms work in float32; where they are trained, their results stay too."""
    return FLOAT32 * 2 * training.width * (2 if training.full else 1)


def attention(training: Training) -> int:
    """Of a token: query, key, value and the attended value; for each head a float32, by which they were divided."""
    sides = shapes.of_layer(training.config)
    query, key = sides["q_proj"][0], sides["k_proj"][0]
    size = training.factor if training.gpu else FLOAT32
    return size * 2 * (query + key) + FLOAT32 * training.config["num_attention_heads"]


def mlp(training: Training) -> int:
    """Of a token: gate, its silu, up."""
    return training.factor * 3 * training.config["intermediate_size"]


def targets(training: Training) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of the matrices of a layer that are trained or adapted, by name."""
    if training.full:
        return shapes.of_layer(training.config)
    return shapes.adapted(training.config, training.train.lora)


def inputs_of_targets(training: Training) -> int:
    """Elements of a token that the targets read, each by itself."""
    return sum(inputs for _, inputs in targets(training).values())


def distinct_inputs(training: Training) -> int:
    """Elements of a token that the targets read, each vector once; o_proj's is saved with attention, on a GPU."""
    read = {
        READS.get(name, name): inputs
        for name, (_, inputs) in targets(training).items()
        if name != "o_proj" or not training.gpu  # the CPU's attention is in float32, and shares nothing
    }
    return sum(read.values())


def inputs_of_matrices(training: Training) -> int:
    """Of a token, where the whole model is trained: what the matrices read, which autocast copies for each."""
    copied = training.factor == 2
    return training.factor * (inputs_of_targets(training) if copied else distinct_inputs(training))


def adapted_matrices(training: Training) -> int:
    """Of a token, where an adapter is trained: what its two factors read, and what DoRA measures."""
    size = training.factor * training.train.lora.r * len(targets(training))
    if dropout(training):
        size += (training.factor + mask(training)) * inputs_of_targets(training)  # what is left, and which that is
    if in_8bit(training) or not dropout(training):
        # bitsandbytes' 8-bit product holds its input, whoever else does.
        size += training.factor * distinct_inputs(training)
    if training.train.method == "dora":
        # The base's result and the adapter's.
        size += 2 * training.factor * sum(outputs for outputs, _ in targets(training).values())
    return size


def dropout(training: Training) -> bool:
    """Whether the adapter's inputs are dropped."""
    return training.train.lora.lora_dropout > 0


def mask(training: Training) -> int:
    """Bytes an element of which inputs were dropped."""
    if not dropout(training):
        return 0
    return 1 if training.gpu else training.factor


def in_8bit(training: Training) -> bool:
    """Whether bitsandbytes multiplies in 8 bits."""
    return training.train.quantization == "8bit"


def made_besides(training: Training) -> int:
    """What the backward pass of a layer makes for a while at its worst: around down_proj."""
    if training.full:
        return besides_full(training)
    if training.train.method == "dora":
        return besides_dora(training)
    return besides_lora(training)


def down_proj(training: Training) -> int:
    """Elements of its weight."""
    return training.width * training.config["intermediate_size"]


def down_proj_inputs(training: Training) -> int:
    """Elements that it reads."""
    return training.tokens * training.config["intermediate_size"]


def dequantized(training: Training) -> int:
    """Its weight as bitsandbytes makes it of the quantised one."""
    return 0 if training.train.quantization == "none" else training.factor * down_proj(training)


def besides_full(training: Training) -> int:
    """The gradients of down_proj's input, and of its weight, as a product and in float32."""
    return training.factor * down_proj_inputs(training) + (training.factor + FLOAT32) * down_proj(training)


def besides_lora(training: Training) -> int:
    """In the backward pass the gradients of down_proj's input, or in the forward pass bitsandbytes' 8-bit product."""
    # Two, through base and adapter, of which one takes the place of a saved input.
    gradients = 2 if in_8bit(training) and not dropout(training) else 1
    backward = training.factor * down_proj_inputs(training) * gradients + dequantized(training)
    # The input in 16 and 8 bits, and its outliers.
    product = (3 if dropout(training) else 6) * down_proj_inputs(training)
    return max(backward, product if in_8bit(training) and training.gpu else 0)


def besides_dora(training: Training) -> int:
    """In the backward pass the gradients of up_proj, or in the forward pass the lengths of down_proj's rows."""
    factor = training.factor
    # The gradient of the result in float32, two products of it and two more gradients; down_proj's input is gone.
    of_element = (FLOAT32 if factor == 2 else 0) + 2 * FLOAT32 + 2 * factor - factor - mask(training)
    backward = down_proj_inputs(training) * of_element
    # Both weights, their sum and its squares.
    lengths = 4 * factor * down_proj(training) + dequantized(training)
    return max(backward, lengths)


def of_all_processes(parts: dict[str, int], training: Training) -> dict[str, int]:
    """The parts of one of several processes; on a CPU, of all that share the machine's memory.

    DDP lays a second copy of the gradients out to send them. FSDP cuts weights, gradients and states in equal
    shares, and has two layers whole: the one at work and the next one.
    """
    launch = training.train.launch
    if launch.strategy == "single":
        return parts
    here = launch.processes or max(1, torch.cuda.device_count())
    if launch.strategy == "ddp":
        parts = parts | {"gradients": 2 * parts["gradients"]}
    else:
        shared = ("weights", "adapter", "optimizer", "gradients")
        parts = parts | {name: parts[name] // (here * launch.nodes) for name in shared}
        parts["weights"] += 2 * training.layers * linear_weights(training) // training.layers
    return parts if training.gpu else {name: here * size for name, size in parts.items()}
