"""Steps 1 and 2 on one record: normal form, boilerplate, quality."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.core.errors import UserError
from stages.lib.data.preparation.boilerplate import NAMES, require_known, strip_boilerplate
from stages.lib.data.preparation.cleaning import clean
from stages.lib.data.preparation.normalise import normalise
from stages.lib.data.preparation.quality import defect
from stages.lib.data.preparation.reading.records import Dialogue, Place, Question
from support.settings import prepare_settings

PATTERNS = prepare_settings().boilerplate
ODD = "\u00a0\u2003\u200b\ufeff\u2028\t\r\x07\x00\ud800\x85"
GOOD = "Take paracetamol and rest for two days. See a doctor if the fever stays."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e\u0301te\u0301  39.5 °C\r\n\r\n\r\nok", "été 39.5 °C\n\nok"),
        ("itâ€™s a naÃ¯ve cafÃ©", "it’s a naïve café"),
        ("<p>Take 5&nbsp;mg</p><br/>BP <120 and >80", "Take 5 mg\n\nBP <120 and >80"),
        ("&amp;lt;b&amp;gt;twice&amp;lt;/b&amp;gt; &lt;3 weeks", "twice <3 weeks"),
        ("a\x00b\u200b\ufeffc\ud800d", "abcd"),
        ("write <|im_end|> or <|eot_id|>", "write <|im_end|> or <|eot_id|>"),
        ("👩\u200d⚕️ AT&T Q&A", "👩⚕️ AT&T Q&A"),
        ("it took <a week and the pain was >5", "it took <a week and the pain was >5"),
        ("ALT <u/l 40, AST >30; <body aches>", "ALT <u/l 40, AST >30; <body aches>"),
        ('<a href="x" class=y>go</a> <img src=a.png />', "go"),
    ],
)
def test_normal_form(text, expected):
    assert normalise(text)[0] == expected


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.text(st.characters() | st.sampled_from(ODD + "&;#<>/brp ltamx3\n\ud83d\udc69"), max_size=80))
def test_normal_form_is_a_fixed_point_without_odd_characters(text):
    once, changed = normalise(text)
    assert normalise(once) == (once, [])
    assert bool(changed) == (once != text)
    assert not set(once) & set(ODD)
    once.encode("utf-8")


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("Hi, Thank you for posting your query. It is gout. Hope this helps. Regards, Chat Doctor.", "It is gout."),
        ("Hello, thanks for using Chat Doctor. I have gone through your query. Rest. Take care.", "Rest."),
        ("Hi dear, welcome to Chat Doctor forum. It may be gout. Get well soon.", "It may be gout."),
        ("You had mumps. For more information consult a sexologist online -->", "You had mumps."),
        ("Rest. Revert back with the photos to a dermatologist online -->", "Rest."),
        ("drink water and rest well. Wish you good health. Regards, Dr. Chat Doctor", "drink water and rest well."),
        ("Avoid oily food and coffee, take care.", "Avoid oily food and coffee"),
        ("Good Morning Mr. Sharma. I am Chat Doctor. I have read your question. It is a cold.", "It is a cold."),
        ("Welcome to icliniq.com. Your X-ray is normal.", "Your X-ray is normal."),
        ("It heals. Hope this answers your question. Best regards, Chat Doctor. Gastroenterologist", "It heals."),
        ("It heals. Please do not hesitate to ask for more. All the best.", "It heals."),
        ("hCG is high. Regards, Chat Doctor", "hCG is high."),
    ],
)
def test_boilerplate_goes_from_both_ends(answer, left):
    assert strip_boilerplate(answer, PATTERNS)[0] == left


ALONE = {
    "greeting": ("Good morning Mrs. Smith, it heals.", "It heals."),
    "bare_greeting": ("Hello there it heals.", "It heals."),
    "welcome": ("You are most welcome to our health care magic forum. It heals.", "It heals."),
    "thanks": ("Many thanks for choosing our service today. It heals.", "It heals."),
    "read": ("I have carefully read your question and history. It heals.", "It heals."),
    "introduction": ("My name is Dr. Chat Doctor. It heals.", "It heals."),
    "brief_answer": ("Brief Answer: it heals.", "It heals."),
    "hope": ("It heals. I hope this was informative.", "It heals."),
    "further": ("It heals. I will be glad to answer more.", "It heals."),
    "regards": ("It heals. Have a nice day. Kind regards", "It heals."),
    "chat_doctor": ("It heals - Dr. Chat Doctor, Cardiologist", "It heals"),
}


@pytest.mark.parametrize("name", NAMES)
def test_each_pattern_is_switched_by_its_name(name):
    answer, left = ALONE[name]
    assert strip_boilerplate(answer, [name]) == (left, [name])
    assert name not in strip_boilerplate(answer, [other for other in NAMES if other != name])[1]


def test_an_unknown_pattern_is_named():
    for use in (require_known, lambda names: strip_boilerplate(GOOD, names)):
        with pytest.raises(UserError, match=r"data\.prepare\.boilerplate is 'greetings', expected one of greeting, "):
            use(["greeting", "greetings"])


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        "High fever needs care.",
        "Hi-dose vitamin C is not useful.",
        "Hope is what a patient in pain needs, and hope comes with relief: take ibuprofen.",
        "Rest now. Hope you are not pregnant, because doxycycline is harmful to the fetus.",
        "Take antibiotics. Hope your fever goes down with this. Continue for five days.",
        "I wish you to take omeprazole 20 mg twice daily before meals for two weeks.",
        "Welcome changes in diet are fruit and fibre; thanks to them the pain will go.",
        "You are welcome to take ibuprofen at home twice a day.",
        "I have seen your reports, TSH 9.87 is high. Take thyroxine.",
        "I have read your report of creatinine 1.9 mg/dl. See a nephrologist.",
        "We reviewed the biopsy report: it shows adenocarcinoma grade 2.",
        "Thanks for your question about doxycycline, which must not be taken in pregnancy.",
        "Rest. Do not hesitate to go to the emergency room if you have trouble breathing.",
        "Rest. Let me know if you develop a rash, fever or swelling, as this may be an allergic reaction.",
        "Rest. Feel free to take ibuprofen 400 mg every 8 hours.",
        "Rest. Let me know if your period is late by more than 7 days. Then a test is needed.",
        "",
    ],
)
def test_what_is_no_boilerplate_stays(answer):
    assert strip_boilerplate(answer, PATTERNS) == (answer, [])


@pytest.mark.parametrize(
    "piece", ["hi ", "hi, ", "take care ", "thanks, ", "best ", ". ", "chat doctor ", "- ", "hope "]
)
def test_boilerplate_is_looked_for_in_linear_time(piece):
    """A pattern with nested repeats would take until the end of the world."""
    for text in (piece * 30_000, piece * 30_000 + "x", "x. " + piece * 80 + "y"):
        strip_boilerplate(text, PATTERNS)


def said(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("I have a fever.", GOOD, None),
        ("I have a fever.", "Take two tablets", None),  # careless, not cut
        ("I have a fever.", "You lack vitamin A", None),
        ("I have a fever.", "Yes, you can", None),
        ("I have a fever.", "You need to take Lactulose, Spironolactone, Rifaximin, Propranolol and Furosemide.", None),
        ("", GOOD, "empty"),
        ("Fever?", GOOD, "too_short"),
        ("I have a fever.", "word " * 1501, "too_long"),
        ("I have a fever", "I have a fever.", "answer_is_question"),
        ("I have a fever.", "I would suggest the following", "cut_off"),
        ("I have a fever.", "It could be the flu, a cold,", "cut_off"),
        ("I have a fever.", "You should see a doctor because of the", "cut_off"),
        (
            "I have a fever.",
            "Debe tomar paracetamol cada ocho horas y descansar en casa hasta mejorar.",
            "wrong_language",
        ),
        ("Ich habe seit drei Tagen Fieber und starke Kopfschmerzen, was soll ich tun?", GOOD, "wrong_language"),
    ],
)
def test_quality(question, answer, reason):
    assert defect(said(question, answer), min_words=2, max_words=1500, language="en") == reason
    if reason == "wrong_language":
        assert defect(said(question, answer), min_words=2, max_words=1500, language="any") is None


def test_a_dialogue_is_normalised_stripped_and_masked_and_counted():
    messages = [
        {"role": "system", "content": "You are a doctor."},
        {"role": "user", "content": "Call me  at jane@example.com &amp; tell me what to do."},
        {"role": "assistant", "content": f"Hello, {GOOD} Regards, Chat Doctor"},
    ]
    row = clean(Dialogue(Place("site", 7), messages), prepare_settings())
    assert (row["source"], row["row"], "reason" in row) == ("site", 7, False)
    assert row["messages"] == said("Call me at [EMAIL] & tell me what to do.", GOOD)
    assert row["changes"] == {
        "normalised_html_entities": 1,
        "normalised_white_space": 1,
        "boilerplate_greeting": 1,
        "boilerplate_regards": 1,
        "masked_email": 1,
        "system_left_out": 1,
    }
    kept = clean(Dialogue(Place("site", 7), messages), prepare_settings(keep_system=True))
    assert kept["messages"][0] == messages[0]


def test_a_train_question_becomes_a_dialogue():
    question = Question(Place("q", 1), "Which  drug?", {"A": "a", "B": "b &lt; c", "C": "c", "D": "d"}, "B", "step1")
    row = clean(question, prepare_settings())
    assert row["messages"] == said(
        "Which drug?\nA. a\nB. b < c\nC. c\nD. d\nAnswer with the letter of the correct option.", "B. b < c"
    )
