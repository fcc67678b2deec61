"""The shape of the `template` section of params.yaml: the chat template and its tokens."""

from dataclasses import dataclass

from stages.lib.core.checks import check


@dataclass
class Template:
    """The chat template, and what it asks of the vocabulary."""

    name: str
    chat_template: str | None
    markers: list[str]
    pad_tokens: list[str]

    def __post_init__(self) -> None:
        check("template.pad_tokens", self.pad_tokens, bool(self.pad_tokens), "at least one token")
