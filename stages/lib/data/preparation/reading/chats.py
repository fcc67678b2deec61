"""The messages of a conversation, by whatever names its keys and roles have."""

import re
import reprlib

from stages.lib.data.preparation.reading.columns import DIALOGUE, MESSAGE, filled, layout, plain
from stages.lib.data.preparation.reading.records import Seen
from stages.lib.data.preparation.reading.values import is_missing

ROLES = {  # by the names that people give them, in small letters
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "patient", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "chatbot", "model", "ai", "doctor"), "assistant"),
}
# Whether an assistant's message is trained; of other messages nothing is.
TRAINED = ("train", "training", "trainable", "weight", "loss")
FLAGS = {"true": True, "1": True, "false": False, "0": False}  # in text
# Keys that change what is said or trained, in ways that are not read here.
REFUSED = re.compile(r"tool_calls|function_call|label|ignore|.*(mask|train|weight|image|audio|video).*")
PARTS = ("text", "input_text", "output_text")  # of a content: types that are text


def read_chat(messages: object, name: str, seen: Seen) -> list[dict]:
    """{role, content} of each message, and `train` False where it must not be trained.

    Messages may be objects of a role and a content, or of a turn's question and answer, pairs of these, or lists of
    roles and contents. A blank system message is none. Raises ValueError where a text is missing or a key cannot be
    honoured.
    """
    if isinstance(messages, dict) and messages and all(isinstance(held, list) for held in messages.values()):
        messages = [dict(zip(messages, values, strict=True)) for values in zip(*messages.values(), strict=True)]
    if not isinstance(messages, list):
        raise ValueError(f"`{name}` is {type(messages).__name__}, expected a list of messages")
    read: list[dict] = []
    for i, message in enumerate(messages, start=1):
        if isinstance(message, list) and len(message) == 2:
            message = {"input": message[0], "output": message[1]}
        if not isinstance(message, dict):
            raise ValueError(f"message {i} of `{name}` is {type(message).__name__}, expected an object")
        read += _turn(message, seen) or [_message(message, seen)]
    if read and read[0]["role"] == "system" and not read[0]["content"].strip():
        del read[0]
    return read


def without_unanswered(messages: list[dict], seen: Seen) -> list[dict]:
    """The messages without a last one of the user, which nobody answers and which teaches nothing."""
    if len(messages) < 2 or messages[-1]["role"] != "user":
        return messages
    seen.unread_in_messages["a last message that nobody answers"] += 1
    return messages[:-1]


def require_turns(messages: list[dict], name: str) -> None:
    """Raise ValueError unless user and assistant take turns and something is left to train."""
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        expected = "user and assistant in turn, ending with assistant, after one system message or none"
        raise ValueError(f"the roles of `{name}` are {reprlib.repr(roles)}, expected {expected}")
    if not any(message.get("train", True) for message in messages if message["role"] == "assistant"):
        raise ValueError(f"no assistant message of `{name}` may be trained, expected at least one")


def _turn(message: dict, seen: Seen) -> list[dict]:
    """The messages of an object that is a whole turn: {input, output}, perhaps with a system text; else none."""
    if "role" in message or "from" in message:
        return []
    found = layout(*filled(message), DIALOGUE, ())
    if not {"input", "output"} <= found.of.keys() <= {"input", "output", "system"}:
        return []
    seen.unread_in_messages.update(found.unread)
    roles = (("system", "system"), ("input", "user"), ("output", "assistant"))
    return [{"role": role, "content": _content(message, found.of[key], seen)} for key, role in roles if key in found.of]


def _message(message: dict, seen: Seen) -> dict:
    of, unread = layout(*filled(message), MESSAGE, ())
    role = seen.text(message[of["role"]], of["role"]) if "role" in of else None
    if role is None:
        raise ValueError("`role` is missing, expected text")
    known = ROLES.get(role.strip().casefold())
    if known is None:
        raise ValueError(f"`{of['role']}` is {reprlib.repr(role)}, expected one of {', '.join(ROLES)}")
    content = _content(message, of.get("content", "content"), seen)
    read: dict[str, str | bool] = {"role": known, "content": content}
    for key in unread:
        flag = plain(key)
        if flag in TRAINED and known == "assistant":
            if not _is_trained(message[key], key):
                read["train"] = False
        elif flag not in TRAINED and REFUSED.fullmatch(flag) and message[key] is not False:
            raise ValueError(f"a message has `{key}`, which is not read; take it out, or the message with it")
        else:
            seen.unread_in_messages[key if known == "assistant" else f"{key} ({known})"] += 1
    return read


def _content(message: dict, key: str, seen: Seen) -> str:
    """The text of a message, the parts of a list one below the other; raises ValueError."""
    value = message.get(key)
    if isinstance(value, list) and value:
        texts = [_part(part, key, seen) for part in value]
        return texts[0] if len(texts) == 1 else "\n".join(texts)
    text = None if is_missing(value) else seen.text(value, key)
    if text is None:
        raise ValueError(f"`{key}` is missing, expected text")
    return text


def _part(part: object, key: str, seen: Seen) -> str:
    if isinstance(part, str):
        part = {"text": part}
    is_text = isinstance(part, dict) and part.get("type", "text") in PARTS
    text = seen.text(part.get("text"), "text") if isinstance(part, dict) and is_text else None
    if text is None:
        what = part.get("type") if isinstance(part, dict) else type(part).__name__
        raise ValueError(f"a part of `{key}` is {reprlib.repr(what)}, expected texts only")
    if isinstance(part, dict) and (more := [other for other in filled(part)[0] if other not in ("type", "text")]):
        raise ValueError(f"a part of `{key}` has `{more[0]}`, expected texts only")
    return text


def _is_trained(flag: object, key: str) -> bool:
    if isinstance(flag, str):
        flag = FLAGS.get(flag.strip().casefold(), flag)
    if flag not in (0, 1):
        raise ValueError(f"`{key}` is {reprlib.repr(flag)}, expected true or false, 1 or 0")
    return bool(flag)
