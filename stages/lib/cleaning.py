"""Raw records as rows of messages, and the ones that must go, each with its reason."""

from stages.lib.deduplicate import WORD, exact_duplicates, near_duplicates
from stages.lib.medqa import answer_text, question_prompt
from stages.lib.normalise import normalise
from stages.lib.records import Dialogue, Question
from stages.lib.schema import Prepare
from stages.lib.split import content_hash


def clean_dialogues(dialogues: list[Dialogue], keep_instruction: bool) -> list[dict]:
    """Normalised rows {id, source, row, messages, hash}: user and assistant, behind the instruction as system."""
    rows = []
    for d in dialogues:
        system, user, assistant = normalise(d.instruction), normalise(d.input), normalise(d.output)
        messages = [{"role": "system", "content": system}] if system and keep_instruction else []
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        rows.append(_row(d.source, d.row, f"{user}\n{assistant}", messages))
    return rows


def clean_questions(questions: list[Question]) -> list[dict]:
    """Normalised rows; the test's hold question, options and answer too, and the prompt without its answer."""
    rows = []
    for q in questions:
        text, options = normalise(q.question), {letter: normalise(q.options[letter]) for letter in sorted(q.options)}
        messages = [{"role": "user", "content": question_prompt(text, options)}]
        if q.source == "medqa_test":
            extra = {"question": text, "options": options, "answer_idx": q.answer_idx, "meta_info": q.meta_info}
        else:
            messages.append({"role": "assistant", "content": answer_text(q.answer_idx, options)})
            extra = {}
        rows.append(_row(q.source, q.row, "\n".join([text, *options.values()]), messages) | extra)
    return rows


def keep_first(rows: list[dict], prepare: Prepare) -> tuple[list[dict], list[dict]]:
    """The rows worth keeping, in order, and the dropped ones with `reason` and, for duplicates, `duplicate_of`."""
    short = {i for i, row in enumerate(rows) if min(map(_words, _texts(row))) < prepare.min_words}
    dropped = dict.fromkeys(short, ("too_short", None))
    rest = [i for i in range(len(rows)) if i not in dropped]
    exact = exact_duplicates([rows[i]["text"] for i in rest])
    dropped |= {rest[i]: ("exact_duplicate", rest[j]) for i, j in exact.items()}
    rest = [i for i in rest if i not in dropped]
    near = near_duplicates([rows[i]["text"] for i in rest], prepare.ngram, prepare.threshold, prepare.num_perm)
    dropped |= {rest[i]: ("near_duplicate", rest[j]) for i, j in near.items()}
    kept = [_without_text(row) for i, row in enumerate(rows) if i not in dropped]
    drops = []
    for i, (reason, first) in sorted(dropped.items()):
        row = rows[i]
        entry = {"source": row["source"], "row": row["row"], "reason": reason, "messages": row["messages"]}
        if first is not None:
            entry["duplicate_of"] = {"source": rows[first]["source"], "row": rows[first]["row"]}
        drops.append(entry)
    return kept, drops


def _row(source: str, number: int, text: str, messages: list[dict]) -> dict:
    hashed = content_hash(text)
    return {"id": hashed[:16], "source": source, "row": number, "messages": messages, "hash": hashed, "text": text}


def _without_text(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "text"}


def _texts(row: dict) -> list[str]:
    """What must have words enough: the user's text, and a doctor's answer (a letter with its option is short)."""
    roles = ("user", "assistant") if row["source"] == "chatdoctor" else ("user",)
    return [message["content"] for message in row["messages"] if message["role"] in roles]


def _words(text: str) -> int:
    return len(WORD.findall(text))
