"""What a decoder layer saves for its backward pass, and what it makes besides for a while. Sizes are bytes."""

from stages.lib.training import shapes
from stages.lib.training.memory_sizes import FLOAT32, Training

# Matrices that read the same vector share it: the names of what they read.
READS = {"q_proj": "attention", "k_proj": "attention", "v_proj": "attention", "gate_proj": "mlp", "up_proj": "mlp"}


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
