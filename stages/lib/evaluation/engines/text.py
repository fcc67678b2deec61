"""What a text that is asked of a model takes of it."""

from typing import NamedTuple

BATCH_TOKENS = 8192  # of the texts that are asked together, where nothing else is said
ROWS = 128  # their sequences, at most


class Text(NamedTuple):
    """A prompt's tokens, those of each answer that is scored after it, and how many may be generated."""

    prompt: int
    answers: list[int]
    generated: int

    @property
    def rows(self) -> int:
        """Sequences: each answer is one."""
        return max(1, len(self.answers))

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return self.prompt + sum(self.answers) + self.generated
