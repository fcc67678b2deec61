"""What predictions are worth: figures, intervals, differences."""

import math
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from stages.lib.core.errors import UserError
from stages.lib.data.medqa import LETTERS, OPTION_LETTERS, question_prompt
from stages.lib.evaluation.engines.batches import batches
from stages.lib.evaluation.engines.text import Text
from stages.lib.evaluation.metrics import bootstrap, exams, wilson
from stages.lib.evaluation.metrics.comparison import TOO_FEW, compare
from stages.lib.evaluation.metrics.measures import MEASURES, measured
from stages.lib.evaluation.predict.exams import choice, shuffle_options
from stages.lib.reporting.gates import FAIL, PASS, judge
from stages.lib.settings.gates import Gates
from support.sample import conversations

RNG = np.random.default_rng(5)
TEXTS = [row["messages"][1]["content"] for row in conversations(40)]


def predictions(better: float = 0.0, right: float = 0.5) -> list[dict]:
    """Of 40 dialogues and 200 questions; `better` lowers the loss, `right` is the share of right choices."""
    rng = np.random.default_rng(11)
    rows = []
    for i, text in enumerate(TEXTS):
        nats = float(40 + rng.normal() - 10 * better)
        rows.append({"id": f"{i}", "kind": "likelihood", "nats": nats, "tokens": 20 + i % 7, "bytes": 90})
        answer = text if better and i % 2 else " ".join(text.split()[::-1])
        rows.append({"id": f"{i}", "kind": "dialogue", "reference": text, "answer": answer, "stopped": True})
    for i in range(200):
        letter = "B" if i < 200 * right else "C"
        choice = {"full_text": letter, "letter": letter, "text": "I do not know." if i % 10 == 0 else f"{letter}. so"}
        about = {"id": f"{i}", "kind": "medqa", "step": f"step{1 + i % 2}", "answer_idx": "B"}
        rows.append(about | choice | {"probabilities": [0.1, 0.7, 0.1, 0.1]})
    return rows


def test_figures_are_those_of_their_definitions_and_lie_in_their_intervals():
    rows = predictions(better=0.5)
    found = measured(rows)
    said = [row for row in rows if row["kind"] == "dialogue"]
    answers, references = [row["answer"] for row in said], [[row["reference"] for row in said]]
    assert found["bleu"] == pytest.approx(BLEU().corpus_score(answers, references).score)
    assert found["chrf"] == pytest.approx(CHRF().corpus_score(answers, references).score)
    told = [row for row in rows if row["kind"] == "likelihood"]
    nats = sum(row["nats"] for row in told)
    assert found["perplexity"] == pytest.approx(math.exp(nats / sum(row["tokens"] for row in told)))
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / (90 * len(told)))
    assert found["accuracy"] == found["letter_accuracy"] == 0.5 and found["generated_accuracy"] == 0.45
    for name in MEASURES:
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_an_interval_holds_the_truth_as_often_as_it_says():
    held, share = 0, 0.3
    for _ in range(300):
        drawn = (RNG.random(200) < share).astype(float)
        low, high = bootstrap.interval(np.column_stack([drawn, np.ones(200)]), bootstrap.ratio)
        held += low <= share <= high
    assert 0.91 <= held / 300 <= 0.985
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 200), rel=0.2)


def test_an_interval_is_the_same_to_the_last_digit_on_any_processor():
    """OpenBLAS is told to take an older and a newer processor's kernels."""
    code = (
        "import numpy as np; from stages.lib.evaluation.metrics import bootstrap; "
        "print(bootstrap.interval(np.random.default_rng(0).random((143, 2)), bootstrap.ratio))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"OPENBLAS_CORETYPE": kind}, capture_output=True, check=True
        ).stdout
        for kind in ("Prescott", "Haswell")
    }
    assert len(seen) == 1


def test_pairing_sees_what_two_intervals_do_not():
    hard = RNG.normal(0, 5, 300)
    one, other = (np.column_stack([100 + hard + shift + RNG.normal(0, 0.1, 300), np.ones(300)]) for shift in (0, 0.2))
    seen = bootstrap.paired(one, other, bootstrap.ratio)
    assert 0 < seen["low"] < 0.2 < seen["high"] and seen["p"] <= 2 / 1001
    (_, first), (second, _) = (bootstrap.interval(units, bootstrap.ratio) for units in (one, other))
    assert first > second  # the two intervals overlap


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1.0), (5, 5, 1.0), (9, 1, 22 / 1024), (0, 8, 2 / 256)])
def test_mcnemar_counts_what_changed(gained, lost, p):
    one = np.array([0] * gained + [1] * lost + [1] * 50)
    other = np.array([1] * gained + [0] * lost + [1] * 50)
    assert bootstrap.mcnemar(one, other) == pytest.approx(p)


def test_better_is_said_only_where_the_interval_leaves_out_zero():
    worse, better = predictions(), predictions(better=1.0, right=0.6)
    same = compare(worse, worse)
    assert {one["verdict"] for one in same.values()} == {"no difference shown"}
    assert all(one["difference"] == 0 and one["p"] == 1 for one in same.values())
    up, down = compare(worse, better), compare(better, worse)
    assert {one["verdict"] for one in up.values()} == {"better"}
    assert {one["verdict"] for one in down.values()} == {"worse"}
    assert up["perplexity"]["difference"] == -down["perplexity"]["difference"] < 0
    little = compare(worse, predictions(right=0.505))
    assert little["accuracy"]["verdict"] == "no difference shown" and little["accuracy"]["p"] == 1
    with pytest.raises(UserError, match="asked different things"):
        compare(worse, better[1:])


@pytest.mark.parametrize(
    ("units", "low", "high"),
    [
        ([[0, 1]] * 8, 0, 3.8415 / 11.8415),  # z² / (n + z²)
        ([[1, 1]] * 8, 8 / 11.8415, 1),
        ([[1, 1]] * 13 + [[0, 1]] * 22, 0.2317, 0.5366),
        ([[0, 2]] * 4, 0, 3.8415 / 7.8415),  # four questions, each twice
        ([[0, 2]] * 10 + [[0, 1]] * 10, 0, 3.8415 / 21.8415),  # 30² / (10 · 4 + 10) = 18
    ],
)
def test_a_share_has_wilsons_interval_of_its_distinct_questions(units, low, high):
    assert wilson.interval(np.array(units, float)) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_what_stands_twice_narrows_no_interval():
    worse, better = predictions(better=0.5), predictions(better=1.0, right=0.6)
    assert measured(worse + worse) == measured(worse)
    assert compare(worse + worse, better + better) == compare(worse, better)


def first(count: int, rows: list[dict]) -> list[dict]:
    """So many rows of each kind."""
    return [
        row for kind in ("likelihood", "dialogue", "medqa") for row in [r for r in rows if r["kind"] == kind][:count]
    ]


def test_too_few_dialogues_and_questions_tell_nothing():
    worse, better = predictions(), predictions(better=1.0, right=1.0)
    for count, few in ((1, True), (29, True), (30, False)):
        one, other = first(count, worse), first(count, better)
        for found in (compare(one, other), compare(one + one, other + other)):
            assert {seen["verdict"] == TOO_FEW for seen in found.values()} == {few}
            assert {"low" in seen or "p" in seen for seen in found.values()} == {not few}
            assert {seen["units"] for seen in found.values()} == {count}
        figures = measured(one)
        assert ("perplexity_low" in figures) == ("bleu_high" in figures) == (not few)
        assert figures["accuracy_low"] < 0.9 and figures["accuracy_high"] == pytest.approx(1)


def test_gates_pass_and_fail_for_what_they_name():
    settings = Gates(strict=False, better=["perplexity"], quantized_points=2, quantized_perplexity=0.03, stopped=1.0)
    good = {"accuracy": 0.60, "perplexity": 3.0, "stopped": 1.0, "stopped_high": 1.0, "answers": 30}
    evaluations = {"base": good | {"stopped": 0.1}, "adapter": good, "tuned": good, "q4_K_M": good}
    seen = {"difference": -1.0, "low": -2.0, "high": -0.5, "verdict": "better", "units": 30}
    told = {"tuned against base": {"perplexity": seen}, "q4_K_M against tuned": {"perplexity": seen, "accuracy": seen}}
    none = {"test": 0, "medqa_test": 0}

    def failed(evaluations=evaluations, told=told, overlap=none, result=FAIL):
        gates = judge(settings, evaluations, told, {"overlap": overlap, "overlap_words": 13})
        assert {gate.result for gate in gates} <= {PASS, result}
        return [gate.gate for gate in gates if gate.result == result]

    assert not failed()
    assert failed(evaluations | {"q4_K_M": good | {"accuracy": 0.58}}) == []
    for change, words in (
        ({"accuracy": 0.579}, "2 points"),
        ({"perplexity": 3.1}, "3% above"),
        ({"stopped": 0.9, "stopped_high": 0.97}, "end"),
        ({"stopped": 0.9, "stopped_high": 0.97, "answers": 10}, "end"),  # one that does not end is enough
    ):
        (gate,) = failed(evaluations | {"q4_K_M": good | change})
        assert words in gate and "q4_K_M" in gate
    assert failed(told=told | {"tuned against base": {"perplexity": seen | {"verdict": "no difference shown"}}})
    assert "13-gram" in failed(overlap={"test": 0, "medqa_test": 1})[0]
    few = {"difference": -1.0, "verdict": TOO_FEW, "units": 1}
    (gate,) = failed(told=told | {"tuned against base": {"perplexity": few}}, result=TOO_FEW)
    assert gate == "tuned is better than base in perplexity"
    assert len(failed(told=told | {"q4_K_M against tuned": {"perplexity": few, "accuracy": few}}, result=TOO_FEW)) == 2
    assert len(failed(evaluations | {"q4_K_M": good | {"answers": 29}}, result=TOO_FEW)) == 1


@pytest.mark.parametrize(
    ("text", "letter"),
    [("B", "B"), ("B. rest", "B"), (" (C) gout", "C"), ("**D**", "D"), ("A: x", "A"), ("The answer is B", "B"),
     ("Answer: C", "C"), ("the correct option is (D) because", "D"), ("A 34-year-old woman", ""), ("Because of B.", ""),
     ("I think it is A", ""), ("b. rest", ""), ("", ""), ("E. none", ""), ("Both A and B", ""), ("Answer: none", "")],
)  # fmt: skip
def test_only_a_letter_that_the_answer_begins_with_is_one(text, letter):
    assert exams.parse_letter(text, LETTERS) == letter


def test_a_letter_that_the_question_lacks_is_none():
    assert exams.parse_letter("E. none", OPTION_LETTERS) == exams.parse_letter("Answer: E", OPTION_LETTERS) == "E"
    assert exams.parse_letter("C. maybe", LETTERS[:3]) == "C" and exams.parse_letter("D. gout", LETTERS[:3]) == ""


@pytest.mark.parametrize(
    ("letters", "texts", "full_text", "letter"),
    [([0.3, 0.7], [0.9, 0.2], "A", "B"), ([0.2, 0.3, 0.5], [0.1, 0.9, 0.2], "B", "C"),
     ([0.1, 0.2, 0.3, 0.15, 0.25], [0.1, 0.1, 0.1, 0.1, 0.9], "E", "C")],
)  # fmt: skip
def test_a_choice_is_among_as_many_letters_as_there_are_options(letters, texts, full_text, letter):
    """The likelihoods of "A. text" are those of A and of what follows it; letters are seen half as often as here."""
    logprobs = [np.log([half / 2, text]) for half, text in zip(letters, texts, strict=True)]
    assert choice(logprobs) == {"full_text": full_text, "letter": letter, "probabilities": letters}


def question(number: int, letters: tuple[str, ...] = LETTERS) -> dict:
    options = {letter: f"option {number} {i}" for i, letter in enumerate(letters)}
    asked = {
        "id": f"{number:016x}",
        "question": f"What is {number}?",
        "options": options,
        "answer_idx": letters[number % len(letters)],
    }
    return asked | {
        "meta_info": "step1",
        "messages": [{"role": "user", "content": question_prompt(f"What is {number}?", options)}],
    }


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_shuffling_moves_the_right_answer_and_keeps_it_right(count):
    places, letters = [], OPTION_LETTERS[:count]
    for number in range(100 * count):
        row = question(number, letters)
        again = shuffle_options(row, 1)
        assert sorted(again["options"].values()) == sorted(row["options"].values())
        assert again["options"][again["answer_idx"]] == row["options"][row["answer_idx"]]
        assert again["messages"][0]["content"] == question_prompt(row["question"], again["options"])
        assert again == shuffle_options(row, 1)
        places.append(again["answer_idx"])
    assert all(70 < places.count(letter) < 130 for letter in letters)
    assert any(
        shuffle_options(question(n), 1)["options"] != shuffle_options(question(n), 2)["options"] for n in range(9)
    )


def test_calibration_and_letter_counts():
    rows = [row for row in predictions(right=0.7) if row["kind"] == "medqa"]
    found = exams.tables(rows, [])
    assert found["calibration_error"] == pytest.approx(0.0) and found["unparseable"] == 20
    assert found["calibration"] == [{"confidence": pytest.approx(0.7), "accuracy": 0.7, "questions": 200}]
    assert found["chosen"]["letter"] == {"A": 0, "B": 140, "C": 60, "D": 0} and found["correct"]["B"] == 200
    assert found["by_step"]["step1"]["questions"] == 100 and found["shuffled"] == {"repeats": 0}
    sure = [row | {"probabilities": [0.0, 1.0, 0.0, 0.0]} for row in rows]
    assert exams.tables(sure, [])["calibration_error"] == pytest.approx(0.3)


def test_a_test_set_may_mix_questions_of_three_four_and_five_options():
    """By hand: of 7 questions, 3 have three options, 2 four, 2 five."""
    asked = (  # step, right, by letter, generated, probabilities
        ("a", "A", "A", "A. yes", [0.5, 0.3, 0.2]),
        ("a", "B", "C", "D. not there", [0.2, 0.25, 0.55]),
        ("a", "C", "C", "C", [0.2, 0.22, 0.58]),
        ("b", "D", "D", "D. d", [0.2, 0.2, 0.2, 0.4]),
        ("b", "A", "B", "E. not there", [0.3, 0.45, 0.15, 0.1]),
        ("c", "E", "E", "E. e", [0.1, 0.1, 0.15, 0.15, 0.5]),
        ("c", "B", "E", "B. b", [0.2, 0.2, 0.1, 0.1, 0.4]),
    )
    names = ("step", "answer_idx", "letter", "text", "probabilities")
    rows = [dict(zip(names, row, strict=True)) for row in asked]
    rows = [row | {"id": f"{i}", "kind": "medqa", "full_text": row["answer_idx"]} for i, row in enumerate(rows)]
    found = exams.tables(rows, [])
    assert found["correct"] == {"A": 2, "B": 2, "C": 1, "D": 1, "E": 1}
    assert found["chosen"]["letter"] == {"A": 1, "B": 1, "C": 2, "D": 1, "E": 2}
    assert found["chosen"]["generated"] == {"A": 1, "B": 1, "C": 1, "D": 1, "E": 1} and found["unparseable"] == 2
    assert found["by_step"]["a"]["letter_accuracy"] == pytest.approx(2 / 3)
    assert found["by_step"]["b"]["letter_accuracy"] == found["by_step"]["c"]["letter_accuracy"] == 0.5
    # Between 0.4 and 0.5 lie 0.4, 0.45 and 0.4, one of them right; from 0.5 on 0.5, 0.55, 0.58 and 0.5, three.
    first, second = abs(1.25 / 3 - 1 / 3), abs(2.13 / 4 - 3 / 4)
    assert found["calibration_error"] == pytest.approx((3 * first + 4 * second) / 7)
    guessed = exams.guessing([*rows, {"kind": "medqa_shuffled"}])
    assert guessed.overall == pytest.approx((3 / 3 + 2 / 4 + 2 / 5) / 7)
    assert guessed.by_step == {"a": 1 / 3, "b": 0.25, "c": 0.2}
    assert exams.tables(rows[:3], [])["correct"] == {"A": 1, "B": 1, "C": 1}


def test_batches_hold_every_text_once_and_no_more_than_fits():
    texts = [
        Text(int(n), [3] * int(k), 5) for n, k in zip(RNG.integers(1, 900, 200), RNG.integers(0, 5, 200), strict=True)
    ]

    def fits(some: list[Text]) -> bool:
        return sum(text.rows for text in some) <= 16 and sum(text.tokens for text in some) <= 1024

    made = batches(texts, fits)
    assert sorted(i for some in made for i in some) == list(range(200))
    assert all(len(some) == 1 or fits([texts[i] for i in some]) for some in made)
    assert any(not fits([texts[i] for i in [*some, after[0]]]) for some, after in pairwise(made))
    assert all(texts[a[0]].tokens >= texts[b[0]].tokens for a, b in pairwise(made))
    assert batches([Text(9999, [], 0)], fits) == [[0]]
