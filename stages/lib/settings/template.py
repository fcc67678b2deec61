"""The shape of the `template` section of params.yaml: the chat template and its tokens."""

from dataclasses import dataclass

from stages.lib.core.checks import check


@dataclass
class Template:
    """The chat template, and what it asks of the vocabulary."""

    name: str
    chat_template: str
    renamed_tokens: dict[str, str]
    trained_tokens: list[str]
    eos_token: str
    pad_token: str

    def __post_init__(self) -> None:
        check("template.pad_token", self.pad_token, self.pad_token != self.eos_token, "another token than eos_token")
