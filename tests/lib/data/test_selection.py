"""Steps 4 to 7 on many texts: duplicates, contamination, splits."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.data.preparation.cleaning import text_of
from stages.lib.data.preparation.decontaminate import contaminated
from stages.lib.data.preparation.deduplicate import near_duplicates
from stages.lib.data.preparation.ngrams import join, ngrams, select, word_hashes, words
from stages.lib.data.preparation.selection import overlap, selected
from stages.lib.data.preparation.split import content_hash, split_of
from support.settings import prepare_settings

SETTINGS = prepare_settings(near_duplicates={"ngram": 3, "threshold": 0.8, "bands": 20, "band_rows": 6})
LISTS = st.lists(st.lists(st.sampled_from("abcde"), max_size=9), max_size=12)


def drawn(count, length, seed, vocabulary=400):
    draw = random.Random(seed)
    return [" ".join(f"w{draw.randrange(vocabulary)}" for _ in range(length)) for _ in range(count)]


def grams(text, n):
    said = words(text)
    return {tuple(said[i : i + n]) for i in range(max(1, len(said) - n + 1))} if said else set()


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """So that a handful of texts is more than one block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.lib.data.preparation.ngrams.BLOCK", 16)
        yield


@settings(max_examples=200, deadline=None, derandomize=True)
@given(LISTS, st.integers(1, 5))
def test_ngram_hashes_are_equal_where_the_runs_are_equal(texts, n):

    found = ngrams(word_hashes(texts), n)
    by_hash, by_run = {}, {}
    for i, text in enumerate(texts):
        runs = [tuple(text[k : k + n]) for k in range(max(1, len(text) - n + 1))] if text else []
        assert len(found.of(i)) == len(runs)
        for run, hashed in zip(runs, found.of(i).tolist(), strict=True):
            assert by_hash.setdefault(hashed, run) == run
            assert by_run.setdefault(run, hashed) == hashed


@given(LISTS, st.data())
def test_join_and_select(texts, data):
    cut = data.draw(st.integers(0, len(texts)))
    whole = word_hashes(texts)
    joined = join([word_hashes(texts[:cut]), word_hashes(texts[cut:])])
    assert np.array_equal(joined.flat, whole.flat) and np.array_equal(joined.starts, whole.starts)
    chosen = sorted(data.draw(st.sets(st.sampled_from(range(len(texts)))))) if texts else []
    picked = select(whole, chosen)
    assert [picked.of(k).tolist() for k in range(len(chosen))] == [whole.of(i).tolist() for i in chosen]


def test_near_duplicates_against_every_pair():
    """On texts whose copies are near and less near, the clusters are those of comparing every pair."""
    draw, texts = random.Random(3), drawn(150, 40, seed=1)
    for i in range(0, 90, 3):
        copy = texts[i].split()
        for _ in range(i % 4):
            copy[draw.randrange(len(copy))] = "other"
        texts.append(" ".join([*copy, "extra"]))
    near = [
        (i, j)
        for i in range(len(texts))
        for j in range(i)
        if len(grams(texts[i], 3) & grams(texts[j], 3)) >= 0.8 * len(grams(texts[i], 3) | grams(texts[j], 3))
    ]
    assert 10 < len(near) < 30
    clusters = near_duplicates(word_hashes([words(text) for text in texts]), **vars(SETTINGS.near_duplicates))
    assert {frozenset(cluster) for cluster in clusters} == {frozenset(pair) for pair in near}


def test_a_thousand_copies_of_one_text_cost_no_thousand_squared():
    text = drawn(1, 60, seed=2)[0]
    texts = [words(f"{text} {i}") for i in range(5000)]
    (cluster,) = near_duplicates(word_hashes(texts), **vars(SETTINGS.near_duplicates))
    assert cluster == list(range(5000))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(LISTS, LISTS, st.integers(1, 4))
def test_contamination_is_every_shared_run(texts, held_out, n):
    runs = set().union(*(grams(" ".join(text), n) for text in held_out), set())
    expected = {i for i, text in enumerate(texts) if grams(" ".join(text), n) & runs}
    found = contaminated(ngrams(word_hashes(texts), n), ngrams(word_hashes(held_out), n))
    assert set(found) == expected
    for i, at in found.items():
        assert tuple(texts[i][at : at + n]) in runs


def rows_of(dialogues, train=(), test=()):
    sources = [("talk", dialogues), ("train", train), ("exam", test)]
    rows = [
        {"source": name, "row": k, "messages": [{"role": "user", "content": text}], "lengths": [len(text.split())]}
        | {"id": content_hash(words(text)), "changes": {}}
        for name, texts in sources
        for k, text in enumerate(texts, start=1)
    ]
    records = {"talk": "dialogues", "train": "train_questions", "exam": "test_questions"}
    return rows, word_hashes([words(text_of(row)) for row in rows]), records


def test_the_longest_of_a_cluster_is_kept_and_of_equals_the_first():
    first, *others = drawn(40, 40, seed=5)
    texts = [*others, first, f"{first} and more", f"{first} and then", first.upper(), "x y"]
    rows, hashes, records = rows_of(texts)
    steps, splits = selected(rows, hashes, records, SETTINGS)
    assert {i: drop["reason"] for drops in steps.values() for i, drop in drops.items()} == {
        39: "near_duplicate",
        41: "near_duplicate",
        42: "exact_duplicate",
    }
    assert steps["near_duplicates"][39]["duplicate_of"] == {"source": "talk", "row": 41}
    wanted = split_of(rows[40]["id"], SETTINGS.validation, SETTINGS.test)
    assert [name for name, kept in splits.items() if 40 in kept] == [wanted]


@pytest.mark.parametrize("behind", [True, False])
def test_adding_rows_moves_none_between_splits(behind):
    """Near-copies of what is there among the rows that are added, before or behind it."""
    texts = drawn(300, 30, seed=6)
    added = [text.rsplit(" ", 1)[0] for text in texts[::4]] + [f"{text} or so" for text in texts[1::4]]
    added += drawn(200, 30, seed=7)
    where = []
    for these in (texts, texts + added if behind else added + texts):
        rows, hashes, records = rows_of(these)
        _, splits = selected(rows, hashes, records, SETTINGS)
        where.append({text_of(rows[i]): name for name, kept in splits.items() for i in kept})
    before, after = where
    assert len(before.keys() & after.keys()) > 200
    assert all(after[text] == before[text] for text in before.keys() & after.keys())


def test_no_learnt_text_shares_a_long_run_with_a_test():
    texts, exam = drawn(400, 40, seed=8), drawn(30, 40, seed=9)
    leaky = [f"{text} mark {' '.join(exam[i % 30].split()[5:18])}" for i, text in enumerate(drawn(50, 30, seed=10))]
    close = [f"{text} mark {' '.join(exam[i % 30].split()[5:17])}" for i, text in enumerate(drawn(50, 30, seed=11))]
    questions = [*drawn(20, 30, seed=12), exam[0]]
    rows, hashes, records = rows_of(texts + leaky + close, questions, exam)
    steps, splits = selected(rows, hashes, records, SETTINGS)
    of_exam = {i for i, drop in steps["decontaminate"].items() if drop["reason"] == "contaminated_medqa_test"}
    assert of_exam == {*range(400, 450), 520} - set(splits["test"])
    held_out = set().union(*(grams(text_of(rows[i]), 13) for i in splits["test"] + splits["medqa_test"]))
    for i in splits["train"] + splits["validation"]:
        assert not grams(text_of(rows[i]), 13) & held_out
    assert len(splits["medqa_test"]) == len(exam)
    for drop in steps["decontaminate"].values():
        assert tuple(drop["shared"].split()) in held_out


def test_what_decontamination_leaves_overlaps_no_test_and_without_it_the_overlap_is_told():
    texts, exam = drawn(400, 40, seed=8), drawn(30, 40, seed=9)
    leaky = [f"{text} mark {' '.join(exam[i].split()[5:18])}" for i, text in enumerate(drawn(10, 30, seed=10))]
    rows, hashes, records = rows_of(texts + leaky, [], exam)
    for decontaminate, expected in ((13, {"test": 0, "medqa_test": 0}), (0, None)):
        steps, splits = selected(rows, hashes, records, prepare_settings(decontaminate=decontaminate))
        found = {i for i in range(400, 410) if i not in splits["test"]}
        assert overlap(hashes, splits) == (expected or {"test": 0, "medqa_test": len(found)})
        assert set(steps["decontaminate"]) == (found if decontaminate else set())


def test_the_share_of_train_questions_does_not_depend_on_their_order():
    questions = drawn(60, 20, seed=13)
    few = prepare_settings(train_questions=25)
    kept = []
    for order in (questions, questions[::-1]):
        rows, hashes, records = rows_of(drawn(50, 30, seed=14), order)
        steps, splits = selected(rows, hashes, records, few)
        assert {drop["reason"] for drop in steps["train_questions"].values()} == {"beyond_share"}
        kept.append({text_of(rows[i]) for i in splits["train"] if rows[i]["source"] == "train"})
    assert kept[0] == kept[1] and len(kept[0]) == 25


def test_split_shares():
    splits = [split_of(content_hash([str(i)]), 0.05, 0.05) for i in range(20000)]
    assert abs(splits.count("test") / 20000 - 0.05) < 0.006
    assert abs(splits.count("validation") / 20000 - 0.05) < 0.006
