"""Compose the embedded sample corpus from the clinical fact tables in `data/sample/`: synthetic, seeded, varied."""

import random
from collections.abc import Callable
from pathlib import Path

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_yaml
from stages.lib.data.medqa import LETTERS
from stages.lib.rendering.prose import listed

INSTRUCTION = "Please answer the patient as a doctor."
SOURCE = "synthetic"
TELLING = 3  # the first symptoms of a condition, enough to tell it from those of other specialties
ADULT = 13  # years; a parent writes for anybody younger

TEXTS = ("name", "specialty", "sex", "onset", "test", "treatment", "advice")
LISTS = {"age": 2, "symptoms": TELLING + 2, "complaints": 2, "red_flags": 2}  # the fewest entries of each
COMMON = 3  # how many times as often a common condition is drawn
PLAIN = 0.75  # share of dialogues in everyday words


def dialogues(tables: Path, count: int, seed: int) -> list[dict]:
    """Make `count` patient-and-doctor exchanges in ChatDoctor's format, common conditions COMMON times as often.

    No two have the same input. Raises UserError where a table is missing or malformed, or too small for `count`.
    """
    conditions, phrases = read_tables(tables)
    rng = random.Random(f"dialogues {seed}")
    drawn = [condition for condition in conditions for _ in range(COMMON if condition["common"] else 1)]
    return distinct(lambda condition: dialogue(condition, phrases, rng), drawn, count, rng, "input")


def questions(tables: Path, count: int, seed: int) -> list[dict]:
    """Make `count` four-option questions in MedQA's format, each kind of each condition about equally often.

    No two have the same stem. Raises UserError as `dialogues` does.
    """
    conditions, phrases = read_tables(tables)
    rng = random.Random(f"questions {seed}")
    cases = [(condition, kind) for condition in conditions for kind in phrases["questions"]]
    return distinct(lambda case: question(case[0], case[1], conditions, phrases, rng), cases, count, rng, "question")


def read_tables(tables: Path) -> tuple[list[dict], dict]:
    """Read `conditions.yaml` and `phrases.yaml` of a folder; raises UserError where one is missing or malformed."""
    conditions = read_yaml(tables / "conditions.yaml", list)
    for number, condition in enumerate(conditions, start=1):
        check(condition, f"{tables / 'conditions.yaml'}, condition {number}")
    return conditions, read_yaml(tables / "phrases.yaml", dict)


def check(condition: dict, where: str) -> None:
    """Raise UserError where a condition lacks a text, or a list or enough entries in it."""
    if not isinstance(condition, dict):
        raise UserError(f"{where}: expected columns and values, got {condition!r}")
    for column in TEXTS:
        if not isinstance(condition.get(column), str):
            raise UserError(f"{where}: {column}: expected a text, got {condition.get(column)!r}")
    if not isinstance(condition.get("common"), bool):
        raise UserError(f"{where}: common: expected true or false, got {condition.get('common')!r}")
    for column, fewest in LISTS.items():
        if not isinstance(condition.get(column), list) or len(condition[column]) < fewest:
            raise UserError(f"{where}: {column}: expected {fewest} entries or more, got {condition.get(column)!r}")


def distinct(make: Callable, cases: list, count: int, rng: random.Random, key: str) -> list[dict]:
    """Call `make` on the cases in turn, in a new order each round, until `count` records differ in `key`.

    Raises UserError where a whole round brings nothing new.
    """
    records: dict[str, dict] = {}
    while len(records) < count:
        before = len(records)
        for case in rng.sample(cases, len(cases)):
            record = make(case)
            records.setdefault(record[key], record)
        if len(records) == before:
            raise UserError(f"the sample tables repeat themselves after {before} records; ask for fewer than {count}")
    return list(records.values())[:count]


def dialogue(condition: dict, phrases: dict, rng: random.Random) -> dict:
    """Compose one exchange: a patient, or a parent, describes the complaint and a doctor answers."""
    wording = phrases["dialogue"]
    patient = draw_patient(condition, phrases, rng)
    plain = rng.random() < PLAIN
    if plain:
        text, orders = plain_question(condition, patient, phrases, rng), wording["plain_orders"]
        symptoms = condition["symptoms"][:TELLING]
    else:
        symptoms = draw_symptoms(condition, rng.choice((2, 3)), rng)
        text, orders = described_question(symptoms, patient, wording, rng), wording["orders"]
    return {
        "instruction": INSTRUCTION,
        "input": tidy(text),
        "output": doctor_answer(condition, symptoms, rng.choice(orders), wording["parts"], rng),
        "source": SOURCE,
    }


def described_question(symptoms: list[str], patient: dict, wording: dict, rng: random.Random) -> str:
    """Word symptoms as a patient who writes to a doctor does."""
    template = rng.choice(wording["adult" if patient["age"] >= ADULT else "child"])
    return template.format(
        **patient,
        symptoms=listed(symptoms),
        greeting=rng.choice(wording["greetings"]),
        context=rng.choice(wording["contexts"]),
        request=rng.choice(wording["requests"]),
    )


def plain_question(condition: dict, patient: dict, phrases: dict, rng: random.Random) -> str:
    """Word one or two complaints of a condition as a lay person does."""
    wording = phrases["dialogue"]
    pronouns = phrases["pronouns"][patient["sex"]]
    complaint, another = (one.format(**pronouns) for one in rng.sample(condition["complaints"], 2))
    duration = patient["duration"]
    template = rng.choice(wording["plain_adult" if patient["age"] >= ADULT else "plain_child"])
    return template.format(
        **patient,
        complaint=complaint,
        another=another,
        greeting=rng.choice(wording["greetings"]),
        since=rng.choice(wording["sinces"]).format(duration=duration, Duration=duration[0].upper() + duration[1:]),
        plain_context=rng.choice(wording["plain_contexts"]),
        plain_request=rng.choice(wording["plain_requests"]),
    )


def doctor_answer(condition: dict, symptoms: list[str], order: list[str], parts: dict, rng: random.Random) -> str:
    """Word the diagnosis, test, treatment and a last remark, in an order of `phrases.yaml`."""
    facts = {
        "condition": condition["name"],
        "symptom": rng.choice(symptoms),
        "test": condition["test"],
        "treatment": condition["treatment"],
        "advice": condition["advice"],
        "red_flag": rng.choice(condition["red_flags"]),
    }
    return " ".join(rng.choice(parts[part]).format(**facts) for part in order)


def question(condition: dict, kind: str, conditions: list[dict], phrases: dict, rng: random.Random) -> dict:
    """Compose one question of a kind of `phrases.yaml`; the right letter and the wrong options are drawn evenly."""
    wording = phrases["questions"][kind]
    patient = draw_patient(condition, phrases, rng)
    answer = rng.choice(values(condition, wording["asks"]))
    symptoms = draw_symptoms(condition, 3 if kind == "diagnosis" else rng.choice((1, 2)), rng, without=answer)
    stem = rng.choice(wording["stems"]).format(
        **patient,
        symptoms=listed(symptoms),
        complaint=rng.choice(condition["complaints"]).format(**phrases["pronouns"][patient["sex"]]),
        condition=condition["name"],
        answer=answer,
    )
    others = [other for other in conditions if could_be_wrong_option(other, condition, patient["sex"])]
    wrong = [rng.choice(values(other, wording["asks"])) for other in rng.sample(others, len(LETTERS) - 1)]
    options = rng.sample([answer, *wrong], len(LETTERS))
    return {
        "question": tidy(stem),
        "answer": answer,
        "options": dict(zip(LETTERS, options, strict=True)),
        "meta_info": wording["meta_info"],
        "answer_idx": LETTERS[options.index(answer)],
        "source": SOURCE,
    }


def could_be_wrong_option(other: dict, condition: dict, sex: str) -> bool:
    """Tell whether another condition's facts are plausible for this patient's sex and wrong beyond doubt."""
    return other["specialty"] != condition["specialty"] and other["sex"] in ("any", sex)


def values(condition: dict, column: str) -> list[str]:
    """List what a condition offers as an option: its one entry, its red flags or its telling symptoms."""
    entry = condition[column]
    return [entry] if isinstance(entry, str) else entry[:TELLING]


def draw_patient(condition: dict, phrases: dict, rng: random.Random) -> dict:
    """Draw a typical patient's age (years), sex, the words for the person, and the time since onset."""
    age = rng.randint(*condition["age"])
    sex = rng.choice(("female", "male")) if condition["sex"] == "any" else condition["sex"]
    return {
        "age": age,
        "sex": sex,
        "person": phrases["people"]["adult" if age >= ADULT else "child"][sex],
        "family": phrases["family"][sex],
        "duration": rng.choice(phrases["durations"][condition["onset"]]),
    }


def draw_symptoms(condition: dict, count: int, rng: random.Random, without: str = "") -> list[str]:
    """Draw `count` different symptoms in any order, at least one of them telling, never the one to be asked for."""
    symptoms = [symptom for symptom in condition["symptoms"] if symptom != without]
    first = rng.choice([symptom for symptom in condition["symptoms"][:TELLING] if symptom != without])
    rest = rng.sample([symptom for symptom in symptoms if symptom != first], count - 1)
    return rng.sample([first, *rest], count)


def tidy(text: str) -> str:
    """Close the gaps that empty slots leave, and write "An 18-year-old" where English asks for it."""
    words = text.split()
    pairs = zip(words, [*words[1:], ""], strict=True)
    return " ".join(word + "n" if word in ("A", "a") and takes_an(after) else word for word, after in pairs)


def takes_an(word: str) -> bool:
    """Tell whether an age begins with a vowel sound: eight, eleven, eighteen, eighty and up."""
    return word.startswith(("8", "11-", "18-"))
