"""The sample corpus: right formats, right answers, no repeats, real variety."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from stages.lib.core.errors import UserError
from stages.lib.data.preparation import deduplicate
from stages.lib.data.preparation.ngrams import word_hashes, words
from stages.lib.data.sources import sample
from support.settings import ROOT

TABLES = ROOT / "data/sample"
CONDITIONS, PHRASES = sample.read_tables(TABLES)
NAMES = [condition["name"] for condition in CONDITIONS]


@pytest.fixture(scope="module")
def dialogues() -> list[dict]:
    return sample.dialogues(TABLES, 800, seed=1)


@pytest.fixture(scope="module")
def questions() -> list[dict]:
    return sample.questions(TABLES, 1000, seed=1)


def dialogue_text(record: dict) -> str:
    return f"{record['input']} {record['output']}"


def question_text(record: dict) -> str:
    return " ".join([record["question"], *record["options"].values()])


def near_duplicates(texts: list[str]) -> int:
    """Count the texts that are near-duplicates of another one, by word 3-grams at Jaccard 0.8."""
    hashes = word_hashes([words(text) for text in texts])
    return sum(len(cluster) - 1 for cluster in deduplicate.near_duplicates(hashes, 3, 0.8, bands=20, band_rows=6))


def condition_of(record: dict, column: str) -> dict:
    """The condition a question is about: whose column holds its answer."""
    (owner,) = (condition for condition in CONDITIONS if record["answer"] in sample.values(condition, column))
    return owner


def kind_of(record: dict) -> str:
    """The kind of a question, found by the words of its stem."""
    for kind, wording in PHRASES["questions"].items():
        for stem in wording["stems"]:
            pattern = re.sub(r"\\{\w+\\}", ".+", re.escape(stem)).replace("A\\ .+", "An?\\ .+")
            if re.fullmatch(pattern, record["question"]):
                return kind
    raise AssertionError(f"no stem fits {record['question']!r}")


def complaints_of(condition: dict) -> list[str]:
    """A condition's complaints, of a girl and of a boy."""
    return [text.format(**words) for text in condition["complaints"] for words in PHRASES["pronouns"].values()]


def test_tables_hold_enough_complete_conditions():
    assert len(CONDITIONS) >= 84
    assert len(set(NAMES)) == len(NAMES)
    for condition in CONDITIONS:
        assert set(condition) == {*sample.TEXTS, *sample.LISTS, "common"}, condition["name"]
        assert condition["sex"] in ("any", "female", "male")
        assert condition["onset"] in PHRASES["durations"]
        low, high = condition["age"]
        assert 2 <= low < high < 100  # the stems say "years"
        assert high < sample.ADULT or low >= sample.ADULT
        assert len(set(condition["symptoms"])) == len(condition["symptoms"])
        assert len(condition["complaints"]) >= (14 if condition["common"] else 8)
        assert all(("{" in text) <= (high < sample.ADULT) for text in condition["complaints"])
    complaints = [text for condition in CONDITIONS for text in condition["complaints"]]
    assert len(set(complaints)) == len(complaints)


@pytest.mark.parametrize("column", ["name", "test", "treatment", "red_flags", "symptoms"])
def test_an_option_belongs_to_one_condition_and_is_short(column: str):
    entries = [entry for condition in CONDITIONS for entry in sample.values(condition, column)]
    assert [entry for entry, times in Counter(entries).items() if times > 1] == []
    assert [entry for entry in entries if not 1 <= len(entry.split()) <= 10] == []


def test_a_telling_symptom_is_no_symptom_of_another_condition():
    everywhere = Counter(symptom for condition in CONDITIONS for symptom in condition["symptoms"])
    telling = [symptom for condition in CONDITIONS for symptom in sample.values(condition, "symptoms")]
    assert [symptom for symptom in telling if everywhere[symptom] > 1] == []


def test_dialogues_have_the_format_of_chatdoctor(dialogues: list[dict]):
    assert len(dialogues) == 800
    for record in dialogues:
        assert list(record) == ["instruction", "input", "output", "source"]
        assert record["instruction"] == sample.INSTRUCTION
        assert 4 <= len(record["input"].split()) <= 60
        assert 12 <= len(record["output"].split()) <= 65


def test_a_doctor_names_the_condition_of_the_complaint_and_its_treatment(dialogues: list[dict]):
    """Told as symptoms or in everyday words, about as often as the tables say."""
    plain = 0
    for record in dialogues:
        matches = [
            (condition, any(text in record["input"] for text in complaints_of(condition)))
            for condition in CONDITIONS
            if all(fact in record["output"] for fact in (condition["name"], condition["treatment"]))
            and any(text in record["input"] for text in (*condition["symptoms"], *complaints_of(condition)))
        ]
        assert len(matches) == 1, record
        plain += matches[0][1]
    assert abs(plain / len(dialogues) - sample.PLAIN) < 0.06


def test_questions_have_the_format_of_medqa(questions: list[dict]):
    assert len(questions) == 1000
    for record in questions:
        assert list(record) == ["question", "answer", "options", "meta_info", "answer_idx", "source"]
        assert list(record["options"]) == list("ABCD")
        assert len(set(record["options"].values())) == 4
        assert record["options"][record["answer_idx"]] == record["answer"]
        assert 8 <= len(record["question"].split()) <= 50
        assert record["meta_info"] == PHRASES["questions"][kind_of(record)]["meta_info"]


def test_the_answer_is_the_tables_answer_and_no_other_option_is(questions: list[dict]):
    for record in questions:
        asks = PHRASES["questions"][kind_of(record)]["asks"]
        condition = condition_of(record, asks)
        right = sample.values(condition, asks)
        assert [option for option in record["options"].values() if option in right] == [record["answer"]]
        known = (*condition["symptoms"], *complaints_of(condition), condition["name"])
        assert any(text.lower() in record["question"].lower() for text in known)
        assert (record["answer"] in record["question"]) == kind_of(record).startswith("told_")


def test_wrong_options_come_from_other_specialties(questions: list[dict]):
    for record in questions:
        asks = PHRASES["questions"][kind_of(record)]["asks"]
        owners = {entry: c["specialty"] for c in CONDITIONS for entry in sample.values(c, asks)}
        specialties = [owners[option] for option in record["options"].values()]
        assert specialties.count(owners[record["answer"]]) == 1


def test_letters_kinds_and_conditions_are_balanced(dialogues: list[dict], questions: list[dict]):
    letters = Counter(record["answer_idx"] for record in questions)
    assert all(200 <= letters[letter] <= 300 for letter in "ABCD")  # 250 expected, standard deviation 14
    kinds = Counter(kind_of(record) for record in questions)
    assert max(kinds.values()) - min(kinds.values()) <= 40 and kinds.keys() == PHRASES["questions"].keys()
    answered = Counter(name for record in dialogues for name in NAMES if re.search(re.escape(name), record["output"]))
    often = [answered[condition["name"]] for condition in CONDITIONS if condition["common"]]
    seldom = [answered[condition["name"]] for condition in CONDITIONS if not condition["common"]]
    assert min(seldom) >= 2 and 2.7 < (sum(often) / len(often)) / (sum(seldom) / len(seldom)) < 3.3


def test_option_length_does_not_give_the_answer_away(questions: list[dict]):
    longest = sum(max(r["options"].values(), key=len) == r["answer"] for r in questions) / len(questions)
    assert 0.15 <= longest <= 0.35


def test_no_slot_is_left_open_and_no_gap_remains(dialogues: list[dict], questions: list[dict]):
    for text in [*map(dialogue_text, dialogues), *map(question_text, questions)]:
        assert not re.search(r"[{}]|  | [.,?]|^ | $|\b[Aa] (8|11-|18-)", text), text


def test_no_two_records_are_alike(dialogues: list[dict], questions: list[dict]):
    assert len({record["input"] for record in dialogues}) == len(dialogues)
    assert len({record["question"] for record in questions}) == len(questions)


def test_fewer_than_one_in_a_hundred_is_a_near_duplicate(dialogues: list[dict], questions: list[dict]):
    assert near_duplicates([dialogue_text(record) for record in dialogues]) < 8
    assert near_duplicates([question_text(record) for record in questions]) < 10


def test_every_record_is_marked_synthetic(dialogues: list[dict], questions: list[dict]):
    assert {record["source"] for record in [*dialogues, *questions]} == {"synthetic"}


def test_the_seed_decides_everything():
    assert sample.dialogues(TABLES, 50, seed=3) == sample.dialogues(TABLES, 50, seed=3)
    assert sample.dialogues(TABLES, 50, seed=3) != sample.dialogues(TABLES, 50, seed=4)
    assert sample.questions(TABLES, 50, seed=3) == sample.questions(TABLES, 50, seed=3)
    assert sample.questions(TABLES, 50, seed=3) != sample.questions(TABLES, 50, seed=4)


def write_tables(folder: Path, conditions: object) -> Path:
    (folder / "conditions.yaml").write_text(yaml.safe_dump(conditions), encoding="utf-8")
    (folder / "phrases.yaml").write_text(yaml.safe_dump(PHRASES), encoding="utf-8")
    return folder


def test_an_incomplete_condition_is_named(tmp_path: Path):
    broken = {key: value for key, value in CONDITIONS[1].items() if key != "treatment"}
    with pytest.raises(UserError, match="condition 2: treatment"):
        sample.dialogues(write_tables(tmp_path, [CONDITIONS[0], broken]), 5, seed=1)


def test_a_condition_that_is_no_mapping_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="condition 1: expected columns"):
        sample.dialogues(write_tables(tmp_path, ["gout"]), 5, seed=1)


def test_missing_tables_are_a_users_mistake(tmp_path: Path):
    with pytest.raises(UserError, match=r"conditions\.yaml: no such file"):
        sample.questions(tmp_path, 5, seed=1)


def test_tables_too_small_for_the_count_stop_rather_than_hang(tmp_path: Path):
    tables = write_tables(tmp_path, [CONDITIONS[0] | {"age": [50, 50], "sex": "male"}])
    with pytest.raises(UserError, match="repeat themselves"):
        sample.dialogues(tables, 10**6, seed=1)
