"""Steps 4 to 7 on all records together: which rows stay, in which split, and why the others go."""

from collections.abc import Container

from stages.lib.data.preparation.cleaning import text_of
from stages.lib.data.preparation.decontaminate import OVERLAP_WORDS, contaminated
from stages.lib.data.preparation.deduplicate import exact_duplicates, near_duplicates
from stages.lib.data.preparation.ngrams import Hashes, ngrams, select, words
from stages.lib.data.preparation.split import split_of
from stages.lib.settings.data import NearDuplicates, Prepare

BAD = ("reason", "detail", "content")  # what the steps on a single record say of one that has to go


def selected(
    rows: list[dict], hashes: Hashes, records: dict[str, str], prepare: Prepare
) -> tuple[dict[str, dict[int, dict]], dict[str, list[int]]]:
    """What each step drops (step -> index -> {reason, ...}) and what is left (split -> indices, in order).

    `records` tells what each source holds. Train questions go to the training split; test questions are
    neither dropped nor compared with one another, for a published test set is one as it is. A dialogue's split
    is decided by its own id: of near-duplicates one stays, so none can straddle, and whatever is added, a row
    that stays stays where it is.
    """
    held_out = [i for i, row in enumerate(rows) if records[row["source"]] == "test_questions"]
    alive = [i for i, row in enumerate(rows) if records[row["source"]] != "test_questions"]
    bad = {i: {key: rows[i][key] for key in BAD if key in rows[i]} for i in alive if "reason" in rows[i]}
    steps = {
        "read": {i: drop for i, drop in bad.items() if drop["reason"] == "malformed"},
        "quality": {i: drop for i, drop in bad.items() if drop["reason"] != "malformed"},
    }

    alive = _without(alive, bad)
    steps["exact_duplicates"] = drop_exact(rows, alive)
    alive = _without(alive, steps["exact_duplicates"])
    steps["near_duplicates"] = drop_near(rows, hashes, alive, prepare.near_duplicates)
    alive = _without(alive, steps["near_duplicates"])

    split = {
        i: split_of(rows[i]["id"], prepare.validation, prepare.test)
        if records[rows[i]["source"]] == "dialogues"
        else "train"
        for i in alive
    }
    test = [i for i in alive if split[i] == "test"]
    learnt = _without(alive, set(test))
    n = prepare.decontaminate
    steps["decontaminate"] = {}
    if n:
        grams = ngrams(hashes, n)
        for those, reason in ((held_out, "contaminated_medqa_test"), (test, "contaminated_test")):
            steps["decontaminate"] |= drop_contaminated(rows, grams, learnt, those, n, reason)
            learnt = _without(learnt, steps["decontaminate"])

    questions = [i for i in learnt if records[rows[i]["source"]] == "train_questions"]
    steps["train_questions"] = drop_beyond(rows, questions, prepare.train_questions)
    learnt = _without(learnt, steps["train_questions"])
    splits = {name: [i for i in learnt if split[i] == name] for name in ("train", "validation")}
    return steps, splits | {"test": test, "medqa_test": held_out}


def overlap(hashes: Hashes, splits: dict[str, list[int]]) -> dict[str, int]:
    """How many records of each test set share an n-gram of OVERLAP_WORDS with a train or validation text."""
    grams = ngrams(hashes, OVERLAP_WORDS)
    learnt = select(grams, splits["train"] + splits["validation"])
    return {name: len(contaminated(select(grams, splits[name]), learnt)) for name in ("test", "medqa_test")}


def drop_exact(rows: list[dict], alive: list[int]) -> dict[int, dict]:
    """Every repetition of a text; the first one stays."""
    repeated = exact_duplicates([rows[i]["id"] for i in alive])
    return {alive[i]: _duplicate("exact_duplicate", rows[alive[first]]) for i, first in repeated.items()}


def drop_near(rows: list[dict], hashes: Hashes, alive: list[int], settings: NearDuplicates) -> dict[int, dict]:
    """All but the best of each cluster of near-duplicates: the longest, of equals the first."""
    drops: dict[int, dict] = {}
    for cluster in near_duplicates(select(hashes, alive), **vars(settings)):
        members = [alive[i] for i in cluster]
        best = max(members, key=lambda i: (sum(rows[i]["lengths"]), -i))
        drops |= {i: _duplicate("near_duplicate", rows[best]) for i in members if i != best}
    return drops


def drop_contaminated(
    rows: list[dict], grams: Hashes, alive: list[int], held_out: list[int], n: int, reason: str
) -> dict[int, dict]:
    """Every row that shares an n-gram with a held-out one, with that n-gram."""
    candidates = set(alive)
    return {
        i: {"reason": reason, "shared": " ".join(words(text_of(rows[i]))[at : at + n])}
        for i, at in contaminated(grams, select(grams, held_out)).items()
        if i in candidates
    }


def drop_beyond(rows: list[dict], alive: list[int], most: int) -> dict[int, dict]:
    """All but `most` rows: those of the smallest ids stay, whatever their order."""
    by_id = sorted(alive, key=lambda i: rows[i]["id"])
    return {i: {"reason": "beyond_share"} for i in by_id[most:]}


def _without(indices: list[int], dropped: Container[int]) -> list[int]:
    return [i for i in indices if i not in dropped]


def _duplicate(reason: str, kept: dict) -> dict:
    return {"reason": reason, "duplicate_of": {"source": kept["source"], "row": kept["row"]}}
