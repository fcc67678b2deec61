"""The sizes that the memory of a training is made of. All are bytes where nothing else is said."""

from dataclasses import dataclass
from functools import cached_property

from stages.lib.settings.train import Train
from stages.lib.training import shapes

FLOAT32 = 4


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
