"""The shape of `evaluate.predict` in params.yaml: what each model is asked."""

from dataclasses import dataclass

from stages.lib.core.checks import at_least, check, positive


@dataclass
class Predict:
    """How many dialogues and questions, how long answers may be (tokens), and how many tokens are read together."""

    dialogues: int
    answers: int
    questions: int
    shuffles: int
    max_new_tokens: int
    context: int
    batch_tokens: int

    def __post_init__(self) -> None:
        at_least("evaluate.predict", self, dialogues=0, answers=0, questions=0, shuffles=0)
        positive("evaluate.predict", self, "max_new_tokens", "context", "batch_tokens")
        room = f"more than evaluate.predict.max_new_tokens={self.max_new_tokens}"
        check("evaluate.predict.context", self.context, self.context > self.max_new_tokens, room)
