"""Dialogues in the shapes that people have them."""

from collections.abc import Iterator
from functools import lru_cache

from stages.lib.data.preparation.reading.chats import read_chat, require_turns, without_unanswered
from stages.lib.data.preparation.reading.columns import (
    DIALOGUE,
    Layout,
    filled,
    holds_options,
    layout,
    plain,
    require_text_only,
)
from stages.lib.data.preparation.reading.defects import Defect, readable
from stages.lib.data.preparation.reading.records import SHOWN, Dialogue, Malformed, Origin, Place, Seen
from stages.lib.data.preparation.reading.values import is_chat, unpacked

Numbered = Iterator[tuple[Place, dict | Defect]]


def read_dialogues(rows: Numbered, origin: Origin, seen: Seen) -> Iterator[Dialogue | Malformed]:
    """Yield each row's conversation: a list of messages, or the columns of a question and an answer.

    Beside these a row may have `system`, `history` (pairs of question and answer, before) and `context` (below the
    question). An instruction beside an input is a system message; alone it is the question, as in Alpaca.
    """
    mapped = tuple(origin.columns.items())
    for place, row in rows:
        try:
            found = layout(*filled(readable(row)), DIALOGUE, mapped)
            if mapped:
                seen.mapped.update(origin.columns.keys() & found.of.keys())
            require_text_only(found.unread)
            if holds_options(found.unread):
                raise ValueError("the row is an exam question with options, expected a dialogue")
            messages, shape = _conversation(readable(row), found, seen)
        except ValueError as error:
            yield Malformed(place, str(error), SHOWN.repr(row))
            continue
        seen.shapes[shape] += 1
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        asked = messages[-2]["content"] if len(messages) < 4 else "\n".join(m["content"] for m in messages[:-1])
        seen.add(place.row, asked, system, messages[-1]["content"])
        yield Dialogue(place, messages)


def _conversation(row: dict, found: Layout, seen: Seen) -> tuple[list[dict], str]:
    """The messages of a row, and what its shape is called; raises ValueError with what is wrong."""
    of = found.of
    prompt = unpacked(row[of["input"]], of["input"]) if _spells_chat(row, of) else None
    in_lists = is_chat(prompt)  # TRL's prompt and completion
    seen.unread.update(found.unread)
    if "messages" in of or in_lists:
        used = ("messages", "system") if "messages" in of else ("input", "output", "system")
        seen.unread.update(key for field, key in of.items() if field not in used)
    if "messages" in of:
        name = of["messages"]
        listed = unpacked(row[name], name)
        spoken, shape = without_unanswered(read_chat(listed, name, seen), seen), _chat_shape(listed, name)
    elif in_lists:
        name, answer = of["input"], of.get("output", "output")
        spoken = read_chat(prompt, name, seen)
        spoken += read_chat(unpacked(row.get(answer), answer), answer, seen)
        shape = f"{name} and {answer}, lists of messages"
    else:
        name = of.get("history", "")
        spoken, shape = _columns(row, of, seen)
    if (told := _text(row, of, "system", seen)) and told.strip():
        if spoken[:1] and spoken[0]["role"] == "system":
            told = f"{told}\n\n{spoken.pop(0)['content']}"
        spoken = [{"role": "system", "content": told}, *spoken]
        shape += f", with {of['system']}"
    if name:
        require_turns(spoken, name)
    return spoken, shape


def _spells_chat(row: dict, of: dict[str, str]) -> bool:
    """Whether a row's question is a list, or a text that may spell one."""
    value = row.get(of.get("input", ""))
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("[{"))


def _columns(row: dict, of: dict[str, str], seen: Seen) -> tuple[list[dict], str]:
    """The messages of a question's and an answer's columns, and what that shape is called."""
    instruction, given = (_text(row, of, field, seen) for field in ("instruction", "input"))
    if instruction is None and given is None:
        raise ValueError("`instruction` and `input` are missing, expected the user's question in one of them")
    answer = _text(row, of, "output", seen)
    if answer is None:
        raise ValueError("`output` is missing, expected text")
    # Alpaca's convention: an instruction without an input is itself the question.
    asked, system = (given, instruction) if given and given.strip() else (instruction or given or "", "")
    if "context" in of and (context := seen.text(unpacked(row[of["context"]], of["context"]), of["context"])):
        asked = f"{asked}\n\n{context}"
    last = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    before = _history(unpacked(row[of["history"]], of["history"]), of["history"], seen) if "history" in of else []
    first = [{"role": "system", "content": system}] if system and system.strip() else []
    return [*first, *before, *last], _columns_shape(tuple(of.items()))


def _text(row: dict, of: dict[str, str], field: str, seen: Seen) -> str | None:
    """The text of a field, None where the row has no column for it."""
    return seen.text(row[of[field]], of[field]) if field in of else None


def _history(turns: object, name: str, seen: Seen) -> list[dict]:
    """The turns before a question, given as pairs of question and answer, or as messages; raises ValueError."""
    if isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns):
        return read_chat(turns, name, seen)
    if not isinstance(turns, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in turns):
        raise ValueError(f"`{name}` is {SHOWN.repr(turns)}, expected a list of [question, answer]")
    said = [seen.text(text, name) for pair in turns for text in pair]
    if None in said:
        raise ValueError(f"`{name}` has null for a text, expected a list of [question, answer]")
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)]


def _chat_shape(messages: object, name: str) -> str:
    return "ShareGPT" if is_chat(messages) and "from" in messages[0] else name


@lru_cache(maxsize=4096)
def _columns_shape(of: tuple[tuple[str, str], ...]) -> str:
    """What a row of these fields and columns is called."""
    names = [key for field, key in of if field in ("instruction", "input", "output")]
    shape = "Alpaca" if set(map(plain, names)) <= {"instruction", "input", "output"} else " / ".join(names)
    return shape + "".join(f", with {key}" for field, key in of if field in ("history", "context"))
