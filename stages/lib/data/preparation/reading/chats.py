"""The messages of a conversation, by whatever names its keys and roles have."""

import reprlib

from stages.lib.data.preparation.reading.columns import MESSAGE, filled, is_missing, layout
from stages.lib.data.preparation.reading.records import Seen

ROLES = {  # by the names that people give them, in small letters
    "system": "system",
    **dict.fromkeys(("user", "human", "patient", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "chatbot", "model", "ai", "doctor"), "assistant"),
}
# Whether an assistant's message is trained; of other messages nothing is.
TRAINED = ("train", "training", "trainable", "weight", "loss")
# Keys that change what is said or trained, in ways that are not read here.
REFUSED = ("tool_calls", "function_call", "train_detail", "mask", "masked", "loss_mask", "ignore")


def read_chat(messages: object, name: str, seen: Seen) -> list[dict]:
    """{role, content} of each message, and `train` False where it must not be trained.

    Raises ValueError where a text is missing or a key cannot be honoured.
    """
    if not isinstance(messages, list):
        raise ValueError(f"`{name}` is {type(messages).__name__}, expected a list of messages")
    for i, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise ValueError(f"message {i} of `{name}` is {type(message).__name__}, expected an object")
    return [_message(message, seen) for message in messages]


def require_turns(messages: list[dict], name: str) -> None:
    """Raise ValueError unless user and assistant take turns and something is left to train."""
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        expected = "user and assistant in turn, ending with assistant, after one system message or none"
        raise ValueError(f"the roles of `{name}` are {reprlib.repr(roles)}, expected {expected}")
    if not any(message.get("train", True) for message in messages if message["role"] == "assistant"):
        raise ValueError(f"no assistant message of `{name}` may be trained, expected at least one")


def _message(message: dict, seen: Seen) -> dict:
    of, unread = layout(*filled(message), MESSAGE, ())
    role = seen.text(message, of.get("role", "role"))
    if role is None:
        raise ValueError("`role` is missing, expected text")
    known = ROLES.get(role.strip().casefold())
    if known is None:
        raise ValueError(f"`{of['role']}` is {reprlib.repr(role)}, expected one of {', '.join(ROLES)}")
    content = _content(message, of.get("content", "content"), seen)
    read: dict[str, str | bool] = {"role": known, "content": content}
    for key in unread:
        if key in REFUSED and message[key] is not False:
            raise ValueError(f"a message has `{key}`, which is not read; take it out, or the message with it")
        if key in TRAINED and known == "assistant":
            if not _is_trained(message[key], key):
                read["train"] = False
        else:
            seen.unread_in_messages[key if known == "assistant" else f"{key} ({known})"] += 1
    return read


def _content(message: dict, key: str, seen: Seen) -> str:
    """The text of a message, the parts of a list one below the other; raises ValueError."""
    value = message.get(key)
    if isinstance(value, list) and value:
        texts = [_part(part, key, seen) for part in value]
        return texts[0] if len(texts) == 1 else "\n".join(texts)
    text = None if is_missing(value) else seen.text(message, key)
    if text is None:
        raise ValueError(f"`{key}` is missing, expected text")
    return text


def _part(part: object, key: str, seen: Seen) -> str:
    if isinstance(part, str):
        part = {"text": part}
    text = seen.text(part, "text") if isinstance(part, dict) and part.get("type", "text") == "text" else None
    if text is None:
        what = part.get("type") if isinstance(part, dict) else type(part).__name__
        raise ValueError(f"a part of `{key}` is {reprlib.repr(what)}, expected texts only")
    return text


def _is_trained(flag: object, key: str) -> bool:
    if flag not in (0, 1):
        raise ValueError(f"`{key}` is {reprlib.repr(flag)}, expected true or false, 1 or 0")
    return bool(flag)
