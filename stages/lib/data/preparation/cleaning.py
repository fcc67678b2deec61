"""Steps 1 to 3 on each record by itself: normal form, quality, personal data."""

from collections import Counter

from stages.lib.data.medqa import LETTERS, answer_text, question_prompt, question_text
from stages.lib.data.preparation import quality
from stages.lib.data.preparation.boilerplate import strip_boilerplate
from stages.lib.data.preparation.ngrams import Hashes, word_hashes, words
from stages.lib.data.preparation.normalise import normalise
from stages.lib.data.preparation.personal import mask
from stages.lib.data.preparation.reading.options import without_last_wrong
from stages.lib.data.preparation.reading.records import Dialogue, Malformed, Question
from stages.lib.data.preparation.split import content_hash
from stages.lib.settings.data import Prepare


def clean_chunk(records: list[Dialogue | Question | Malformed], prepare: Prepare) -> tuple[list[dict], Hashes]:
    """Each record as a row of `clean` with the content hash of its words as `id`, and the words of all rows."""
    rows = [clean(record, prepare) for record in records]
    said = [words(text_of(row)) for row in rows]
    return [row | {"id": content_hash(text)} for row, text in zip(rows, said, strict=True)], word_hashes(said)


def clean(record: Dialogue | Question | Malformed, prepare: Prepare) -> dict:
    """A record as a row {source, row, messages, lengths, changes}, with `reason` where it has to go.

    `lengths` are the words of each message; `changes` counts what the steps did, by kind.
    """
    if isinstance(record, Malformed):
        return _row(record, [], {}) | {"reason": "malformed", "detail": record.detail, "content": record.content}
    if isinstance(record, Dialogue):
        return clean_dialogue(record, prepare)
    return clean_question(record, prepare.reduce_options)


def text_of(row: dict) -> str:
    """Where duplicates and contamination are looked for: what was said, or the question with its options.

    System messages and the constant instruction behind a question's options are left out: everyone shares them.
    """
    if "question" in row:
        return question_text(row["question"], row["options"])
    return "\n".join(message["content"] for message in row["messages"] if message["role"] != "system")


def clean_dialogue(dialogue: Dialogue, prepare: Prepare) -> dict:
    """Normalised, its answers stripped of boilerplate, judged, masked."""
    changes: Counter[str] = Counter()
    messages = []
    for message in _trained(dialogue.messages, changes):
        role = message["role"]
        if role == "system" and not prepare.keep_system:
            changes["system_left_out"] += 1
            continue
        content, steps = normalise(message["content"])
        changes.update(f"normalised_{step}" for step in steps)
        if role == "assistant":
            content, patterns = strip_boilerplate(content, prepare.boilerplate)
            changes.update(f"boilerplate_{pattern}" for pattern in patterns)
        messages.append(message | {"content": content})
    reason = quality.defect(messages, prepare.min_words, prepare.max_words, prepare.language)
    for message in messages:
        message["content"], masked = mask(message["content"])
        changes.update({f"masked_{kind}": count for kind, count in masked.items()})
    return _row(dialogue, messages, dict(changes)) | ({"reason": reason} if reason else {})


def _trained(messages: list[dict], changes: Counter[str]) -> list[dict]:
    """The messages up to the last one that is trained; those after it can teach nothing."""
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    trained = [i for i in answers if messages[i].get("train", True)]
    if len(trained) < len(answers):
        changes["answers_not_trained"] += len(answers) - len(trained)
    return messages[: trained[-1] + 1]


def clean_question(question: Question, reduce_options: bool) -> dict:
    """A question of an exam as prompt and answer; the patient of an exam is nobody, so nothing is masked.

    With `reduce_options` one of more than four options loses its last wrong ones.
    """
    texts, right = question.options, question.answer_idx
    if reduce_options and len(texts) > len(LETTERS):
        texts, right = without_last_wrong(texts, right, len(LETTERS))
    options = {letter: normalise(text)[0] for letter, text in texts.items()}
    asked = normalise(question.question)[0]
    messages = [
        {"role": "user", "content": question_prompt(asked, options)},
        {"role": "assistant", "content": answer_text(right, options)},
    ]
    extra = {"question": asked, "options": options, "answer_idx": right, "meta_info": question.meta_info}
    row = _row(question, messages, {}) | extra
    return row if asked and all(options.values()) else row | {"reason": "empty"}


def _row(record: Dialogue | Question | Malformed, messages: list[dict], changes: dict[str, int]) -> dict:
    lengths = [len(message["content"].split()) for message in messages]
    place = record.place
    return {
        "source": place.source,
        **({"file": place.file} if place.file else {}),
        "row": place.row,
        "messages": messages,
        "lengths": lengths,
        "changes": changes,
    }
