"""The chat template: messages to token ids, and the labels that training learns from."""

import re
from functools import lru_cache
from typing import cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from stages.lib.core.errors import UserError

IGNORED = -100  # the label that the loss skips
# Contents are put into the rendered template as numbered placeholders of two private-use characters.
PLACEHOLDER = "\ue000{}\ue001"
PLACEHOLDERS = re.compile("\ue000(\\d+)\ue001")
Layout = list[list[int] | int]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict]) -> list[int]:
    """Token ids of a conversation up to where the assistant speaks next; BOS in front where the base puts it."""
    contents = contents_ids(tokenizer, [message["content"] for message in messages])
    layout = _layout(tokenizer, tokenizer.chat_template, _roles(messages), add_generation_prompt=True)
    return [token for part in layout for token in (contents[part] if isinstance(part, int) else part)]


def rendered(tokenizer: PreTrainedTokenizerBase, messages: list[dict], answering: bool = False) -> str:
    """A conversation as text, markers and all; with `answering`, up to where the assistant speaks next."""
    return cast(str, tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answering))


def content_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of one message's text; whatever it spells, none of them is a control token."""
    return contents_ids(tokenizer, [text])[0]


def contents_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """`content_ids` of many texts at once, on every core."""
    stripped = [text.strip() for text in texts]
    options = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
    return tokenizer(stripped, **options, verbose=False)["input_ids"]


def puts_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer puts BOS in front of a text, as Llama-3's does and SmolLM2's does not."""
    return tokenizer.bos_token_id in tokenizer("a")["input_ids"]


def end_of_answer(tokenizer: PreTrainedTokenizerBase) -> str:
    """The special token that the template has behind an answer; raises UserError where there is none."""
    roles = ("user", "assistant")
    layout = _layout(tokenizer, tokenizer.chat_template, roles, add_generation_prompt=False)
    at = layout.index(1) if 1 in layout else len(layout)
    behind = layout[at + 1] if at + 1 < len(layout) else []
    special = tokenizer.added_tokens_decoder
    if isinstance(behind, int) or not behind or behind[0] not in special:
        raise UserError("the chat template puts no special token behind an answer: a model could not learn to end it")
    return str(special[behind[0]])


def training_examples(
    tokenizer: PreTrainedTokenizerBase, conversations: list[list[dict]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Token ids and labels (int32, equal in length) of each conversation.

    Labels are the ids of each assistant content and of the EOS behind it, IGNORED elsewhere and where a message has
    `train` False: the spans come from the tokens' positions, never from a search in the text. Raises UserError where
    the template puts another token than EOS behind an answer, or where nothing is left to learn.
    """
    contents = iter(contents_ids(tokenizer, [m["content"] for messages in conversations for m in messages]))
    examples = []
    for messages in conversations:
        said = [next(contents) for _ in messages]
        layout = _layout(tokenizer, tokenizer.chat_template, _roles(messages), add_generation_prompt=False)
        examples.append(_example(layout, messages, said, tokenizer))
    return examples


def _example(
    layout: Layout, messages: list[dict], said: list[list[int]], tokenizer: PreTrainedTokenizerBase
) -> tuple[np.ndarray, np.ndarray]:
    input_ids, labels, answered = [], [], False
    for part in layout:
        ids = said[part] if isinstance(part, int) else part
        trained = isinstance(part, int) and messages[part]["role"] == "assistant" and messages[part].get("train", True)
        input_ids += ids
        labels += ids if trained else [IGNORED] * len(ids)
        if answered:
            if ids[:1] != [tokenizer.eos_token_id]:
                raise UserError(
                    f"the chat template puts another token than EOS, {tokenizer.eos_token!r}, behind an answer; "
                    "install a template with `dvc repro base`"
                )
            labels[len(labels) - len(ids)] = ids[0]
        answered = trained
    if not any(label != IGNORED for label in labels):
        raise UserError(f"a conversation of {len(messages)} messages has no assistant text to learn from")
    return np.array(input_ids, np.int32), np.array(labels, np.int32)


def _roles(messages: list[dict]) -> tuple[str, ...]:
    return tuple(message["role"] for message in messages)


@lru_cache(maxsize=256)
def _layout(
    tokenizer: PreTrainedTokenizerBase, template: str | None, roles: tuple[str, ...], add_generation_prompt: bool
) -> Layout:
    """The rendered conversation: token ids of the template's own pieces, between them the messages' numbers.

    Only the template's pieces may become control tokens. A content is plain text whatever it spells: a
    patient who writes <|im_end|> ends no turn. Llama-3's split pattern and the template's trim make the
    cuts harmless: the ids equal those of the whole text where no content spells a control token. `template`
    is part of the key of the cache: the tokenizer's own may have been replaced.
    """
    if template is None:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template; rebuild it with `dvc repro base`"
        )
    numbered = [{"role": role, "content": PLACEHOLDER.format(i)} for i, role in enumerate(roles)]
    parts = PLACEHOLDERS.split(rendered(tokenizer, numbered, add_generation_prompt))
    return [int(part) if i % 2 else tokenizer.encode(part, add_special_tokens=False) for i, part in enumerate(parts)]
