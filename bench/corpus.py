"""A synthetic corpus of any size whose near-duplicates and contamination are known, for measuring `prepare`."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.lib.core import paths
from stages.lib.core.files import read_json, write_json
from stages.lib.data.medqa import LETTERS
from stages.lib.data.sources import sample

WORD = re.compile(r"\w+")
GRAMMAR = """
the and i to have a you your it be of been on my what in that is we could can or this for an as me do might from
are any which not was with may if but has had so there when also some will at by should no more after since
about he she they his her their were would now then because out up very just than does did only before during
into over these those how why who where while other most too them him our all am being both each few
"""
FUNCTION_WORDS = GRAMMAR.split()
FUNCTION_SHARE = 0.45  # of all words: what is measured in English prose, and in ChatDoctor's
VOCABULARY = 30_000  # words besides those; what the given texts lack is made of syllables
SYLLABLES = [start + vowel for start in (*"bcdfglmnprstv", "br", "cl", "pr", "st", "tr") for vowel in "aeiou"]
ENDINGS = [*"nrls", "nd", "st", "tion", "ment", "ness", "ing", "ed", "al", "ous", "ic", "itis", "osis", "er", "ly"]
SENTENCE = 12  # words, on average
PHRASES, PHRASE = 300, 5  # stock phrases of so many words; every second text of 20 words or more opens with one
COPIES = 0.08  # of the dialogues are near-copies of another one
COPIES_OF_ONE, SHARES = (1, 2, 3), (0.8, 0.15, 0.05)  # copies an original has, and how often
NEAR = (0.85, 0.95)  # Jaccard similarity of the word 3-grams of a copy and its original
LOOKALIKES = 0.02  # of the dialogues resemble another one, but are no near-copy of it: dropping one is wrong
ALIKE = (0.5, 0.7)  # Jaccard similarity of those
EDITABLE = 42  # words: one edited word of a shorter text would cost more than NEAR allows
TEST_QUESTIONS = 1273  # as many as MedQA has
CONTAMINATED = 200  # half of them dialogues, half train questions
SPAN = (14, 25)  # words of a test question in each
PLAIN, CAPITAL, STOP, CAPITAL_STOP = range(4)  # a token is 4 x word + how it is written


def corpus(folder: Path, dialogues: int, questions: int, seed: int, lengths_from: Path | None = None) -> dict:
    """Write dialogues.json, medqa_train.jsonl, medqa_test.jsonl and truth.json into the folder; return the truth.

    Lengths (words) and vocabulary are those of `lengths_from`, a file in ChatDoctor's format, or else of the sample
    corpus. The truth counts records from 0: `near_duplicates` and `lookalikes` are pairs (copy, original),
    `contaminated_dialogues` and `contaminated_questions` carry a run of words of a test question. Raises ValueError
    where the texts are too short for copies.
    """
    rng = np.random.default_rng(seed)
    given = lengths_from is not None and lengths_from.exists()
    known = read_json(lengths_from) if given else sample.dialogues(paths.SAMPLE, 2000, 0)
    draw, written = _language(known, rng)
    asked = draw(np.clip(rng.normal(125, 35, questions + TEST_QUESTIONS).astype(int), 40, 250), 0)
    tests, train = asked[:TEST_QUESTIONS], asked[TEST_QUESTIONS:]
    lengths = np.array([[max(1, len(WORD.findall(row[key]))) for key in ("input", "output")] for row in known])
    lengths = lengths[rng.integers(len(lengths), size=dialogues)]
    texts = draw(lengths.ravel(), 0.5)
    inputs, outputs = texts[::2], texts[1::2]

    copies, alike, dirty = _roles(lengths, rng)
    for bounds, pairs in ((NEAR, copies), (ALIKE, alike)):
        for copy, original in pairs:
            cut = len(inputs[original])
            text = _edited(np.concatenate([inputs[original], outputs[original]]), *bounds, rng)
            inputs[copy], outputs[copy] = text[:cut], text[cut:]
    dirty_questions = sorted(rng.choice(questions, min(CONTAMINATED // 2, questions), replace=False).tolist())
    for text in [outputs[i] for i in dirty] + [train[i] for i in dirty_questions]:
        size, source = rng.integers(*SPAN, endpoint=True), tests[rng.integers(len(tests))]
        at, begin = rng.integers(len(text) - size), rng.integers(len(source) - size)
        text[at : at + size] = source[begin : begin + size]

    folder.mkdir(parents=True, exist_ok=True)
    _write_dialogues(folder / "dialogues.json", map(written, inputs), map(written, outputs))
    for name, stems in (("medqa_train", train), ("medqa_test", tests)):
        options = draw(rng.integers(2, 5, len(stems) * len(LETTERS)), 0)
        right = rng.choice(LETTERS, len(stems)).tolist()
        _write_questions(folder / f"{name}.jsonl", map(written, stems), map(written, options), right)
    truth = {"near_duplicates": copies, "lookalikes": alike}
    truth |= {"contaminated_dialogues": dirty, "contaminated_questions": dirty_questions}
    write_json(folder / "truth.json", truth)
    return truth


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Similarity of the sets of word 3-grams of two texts in tokens."""
    texts = ((tokens // 4).tolist() for tokens in (a, b))
    first, second = (set(zip(words, words[1:], words[2:], strict=False)) for words in texts)
    return len(first & second) / len(first | second)


def near_quality(removed: list[int], others: int, before: set[int], truth: dict) -> dict:
    """Recall and precision of near-duplicates.

    A planted cluster of k texts has to lose k - 1, whichever; a dropped text beyond those, or outside any cluster,
    is wrong. `lookalikes` is how many of the wrong ones resemble another text below the threshold; `others` are wrong
    drops outside the dialogues; texts dropped `before`, for their language or length, are in no cluster.
    """
    cluster = {i: original for copy, original in truth["near_duplicates"] for i in (copy, original) if i not in before}
    size = Counter(cluster.values())
    lost = Counter(cluster[i] for i in removed if i in cluster)
    hits = sum(min(lost[original], size[original] - 1) for original in size)
    alike = {i for pair in truth["lookalikes"] for i in pair}
    wrong = len(removed) + others - hits
    found = {"recall": hits / sum(k - 1 for k in size.values()), "precision": hits / max(1, hits + wrong)}
    return found | {"dropped": len(removed) + others, "wrong": wrong, "lookalikes": len(alike.intersection(removed))}


def _language(known: list[dict], rng: np.random.Generator):
    """Two functions: `draw` texts of given lengths in words, as arrays of tokens, and how tokens are `written`."""
    seen = Counter(word for row in known for word in WORD.findall(f"{row['input']} {row['output']}".lower()))
    content = [word for word, _ in seen.most_common() if word.isalpha() and len(word) > 2]
    parts = (rng.choice(some, 2 * VOCABULARY).tolist() for some in (SYLLABLES, SYLLABLES, ENDINGS))
    made = map("".join, zip(*parts, strict=True))
    content = [word for word in dict.fromkeys([*content, *made]) if word not in FUNCTION_WORDS][:VOCABULARY]
    table = [f"{form}{end}" for w in FUNCTION_WORDS + content for end in ("", ".") for form in (w, w.capitalize())]
    zipf = [1 / np.arange(1, len(words) + 1) for words in (FUNCTION_WORDS, content)]
    shares = (FUNCTION_SHARE, 1 - FUNCTION_SHARE)
    steps = np.cumsum(np.concatenate([share * z / z.sum() for share, z in zip(shares, zipf, strict=True)]))
    steps[-1] = 1.0
    phrases = np.searchsorted(steps, rng.random((PHRASES, PHRASE)))

    def draw(lengths: np.ndarray, stock: float) -> list[np.ndarray]:
        ends = np.cumsum(lengths)
        starts = ends - lengths
        flat = np.searchsorted(steps, rng.random(ends[-1])).astype(np.int32)
        opened = starts[(lengths >= 20) & (rng.random(len(lengths)) < stock)]
        flat[opened[:, None] + np.arange(PHRASE)] = phrases[rng.integers(PHRASES, size=len(opened))]
        stops = rng.random(len(flat)) < 1 / SENTENCE
        stops[ends - 1] = True
        return np.split(4 * flat + CAPITAL * np.roll(stops, 1) + STOP * stops, ends[:-1])

    return draw, lambda tokens: " ".join(map(table.__getitem__, tokens.tolist()))


def _roles(lengths: np.ndarray, rng: np.random.Generator) -> tuple[list, list, list]:
    """Which dialogues are near-copies, lookalikes and contaminated; no dialogue is, or is copied for, two of them."""
    long = lengths.sum(axis=1) >= EDITABLE
    order = rng.permutation(len(lengths))
    dirty, rest = _split(order, long & (lengths[:, 1] > SPAN[1]), min(CONTAMINATED // 2, len(lengths) // 10))
    wanted, alike = round(COPIES * len(lengths)), round(LOOKALIKES * len(lengths))
    sizes = rng.choice(COPIES_OF_ONE, size=wanted, p=SHARES)
    sizes = sizes[: np.searchsorted(np.cumsum(sizes), wanted) + 1]
    originals, rest = _split(rest, long, len(sizes) + alike)
    copied = np.concatenate([np.repeat(originals[: len(sizes)], sizes)[:wanted], originals[len(sizes) :]])
    pairs = np.stack([rest[: wanted + alike], copied], axis=1).tolist()
    return sorted(pairs[:wanted]), sorted(pairs[wanted:]), sorted(dirty.tolist())


def _split(order: np.ndarray, fit: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = order[fit[order]][:count]
    if len(chosen) < count:
        raise ValueError(f"{len(chosen)} dialogues are long enough to be copied or contaminated, expected {count}")
    return chosen, order[~np.isin(order, chosen)]


def _edited(text: np.ndarray, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """A copy with a few words replaced by others, so that its similarity lies between the bounds."""
    while True:
        target = rng.uniform(low, high)
        edits = max(1, round(len(text) * (1 - target) / (1 + target) / 3))  # an edit costs three 3-grams of either text
        at = rng.choice(len(text), edits, replace=False)
        copy = text.copy()
        copy[at] = 4 * rng.integers(len(FUNCTION_WORDS), VOCABULARY, edits) + copy[at] % 4
        if low <= jaccard(text, copy) <= high:
            return copy


def _write_dialogues(path: Path, inputs: Iterator[str], outputs: Iterator[str]) -> None:
    """A JSON array, a record a line."""
    with path.open("w", encoding="utf-8") as file:
        before = "[\n"
        for asks, answers in zip(inputs, outputs, strict=True):
            file.write(before + json.dumps({"instruction": sample.INSTRUCTION, "input": asks, "output": answers}))
            before = ",\n"
        file.write("\n]\n")


def _write_questions(path: Path, questions: Iterator[str], texts: Iterator[str], right: list[str]) -> None:
    """JSON lines in MedQA's format; four of the texts are a question's options."""
    with path.open("w", encoding="utf-8") as file:
        for question, letter in zip(questions, right, strict=True):
            options = {name: next(texts) for name in LETTERS}
            row = {"question": question, "answer": options[letter], "options": options}
            file.write(json.dumps(row | {"meta_info": "step1", "answer_idx": letter}) + "\n")
