"""The chat template: messages to token ids, and the labels that training learns from."""

import re

from transformers import PreTrainedTokenizerBase

from stages.lib.errors import UserError

IGNORED = -100  # the label that the loss skips
# Contents are put into the rendered template as numbered placeholders of two private-use characters.
PLACEHOLDER = "\ue000{}\ue001"
PLACEHOLDERS = re.compile("\ue000(\\d+)\ue001")


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict]) -> list[int]:
    """Token ids of a conversation up to where the assistant speaks next, one BOS at the start."""
    return [token for ids, _ in _pieces(tokenizer, messages, add_generation_prompt=True) for token in ids]


def content_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of one message's text; whatever it spells, none of them is a control token."""
    return tokenizer.encode(text.strip(), add_special_tokens=False, split_special_tokens=True)


def training_ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], end_token: str
) -> tuple[list[int], list[int]]:
    """Token ids and labels of a conversation, equal in length.

    Labels are the ids of each assistant content and of the end token behind it, IGNORED elsewhere: the
    spans come from the tokens' positions, never from a search in the text. Raises UserError where the
    template puts another token than `end_token` behind an answer, or where nothing is left to learn.
    """
    end = tokenizer.convert_tokens_to_ids(end_token)
    input_ids, labels, answered = [], [], False
    for ids, message in _pieces(tokenizer, messages, add_generation_prompt=False):
        input_ids += ids
        trained = message is not None and message["role"] == "assistant"
        labels += ids if trained else [IGNORED] * len(ids)
        if answered:
            if ids[:1] != [end]:
                raise UserError(
                    f"template.end_token is {end_token!r}, but the chat template puts another token behind an answer"
                )
            labels[len(labels) - len(ids)] = end
        answered = trained
    if not any(label != IGNORED for label in labels):
        raise UserError(f"a conversation of {len(messages)} messages has no assistant text to learn from")
    return input_ids, labels


def _pieces(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], add_generation_prompt: bool
) -> list[tuple[list[int], dict | None]]:
    """Token ids of the rendered conversation, cut into the template's own pieces (None) and contents (message).

    Only the template's pieces may become control tokens. A content is plain text whatever it spells: a
    patient who writes <|im_end|> ends no turn. Llama-3's split pattern and the template's trim make the
    cuts harmless: the ids equal those of the whole text where no content spells a control token.
    """
    if tokenizer.chat_template is None:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template; rebuild it with `dvc repro base`"
        )
    numbered = [message | {"content": PLACEHOLDER.format(i)} for i, message in enumerate(messages)]
    rendered = tokenizer.apply_chat_template(numbered, tokenize=False, add_generation_prompt=add_generation_prompt)
    pieces = []
    for i, part in enumerate(PLACEHOLDERS.split(rendered)):
        message = messages[int(part)] if i % 2 else None
        ids = (
            content_ids(tokenizer, message["content"]) if message else tokenizer.encode(part, add_special_tokens=False)
        )
        pieces.append((ids, message))
    return pieces
