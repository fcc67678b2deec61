"""The shape of `export.verify` in params.yaml: how much of a GGUF is looked at."""

from dataclasses import dataclass

from stages.lib.core.checks import at_least, check, positive


@dataclass
class Verify:
    """How many test dialogues a GGUF is compared on, how many prompts it answers, and in how many tokens."""

    dialogues: int
    prompts: int
    max_new_tokens: int
    context: int

    def __post_init__(self) -> None:
        positive("export.verify", self, "dialogues", "max_new_tokens", "context")
        at_least("export.verify", self, prompts=0)
        room = f"more than export.verify.max_new_tokens={self.max_new_tokens}"
        check("export.verify.context", self.context, self.context > self.max_new_tokens, room)
