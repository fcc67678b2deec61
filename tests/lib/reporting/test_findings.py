"""What the report says of figures: nothing that the intervals do not allow, and nothing left out in silence."""

import functools
import re

import matplotlib.pyplot as plt
import pytest

from stages.lib.core.files import read_json, read_yaml
from stages.lib.evaluation.metrics.comparison import TOO_FEW
from stages.lib.evaluation.metrics.exams import Guessing
from stages.lib.evaluation.metrics.measures import EXAM_MEASURES, MEASURES
from stages.lib.reporting import charts, formatting, tables
from stages.lib.reporting.costs import stage_names
from stages.lib.reporting.findings import Findings, base_line, find, measured_lines, sentence, trained_on
from stages.lib.reporting.gates import PASS, Gate
from stages.lib.reporting.markdown import results_markdown, table_lines
from stages.lib.reporting.published import NOT_HERE
from stages.lib.reporting.results import Results
from stages.lib.reporting.tables import Table
from support.evaluated import data_counts, evaluation, predictions, settings, verification
from support.settings import ROOT

FOUR = Guessing(0.25, {"step1": 0.25, "step2&3": 0.25})


def comparison(**verdicts: str) -> dict[str, dict]:
    """A comparison whose measures show no difference but for those named; of too few there is the difference alone."""
    ends = {"better": (0.02, 0.04), "worse": (-0.04, -0.02), "no difference shown": (-0.01, 0.02)}
    found = {}
    for name, measure in MEASURES.items():
        verdict = verdicts.get(name, "no difference shown")
        if verdict == TOO_FEW:
            found[name] = {"difference": 0.125, "verdict": verdict}
            continue
        low, high = ends[verdict] if measure.more_is_better else sorted(-end for end in ends[verdict])
        found[name] = {"difference": (low + high) / 2, "low": low, "high": high, "p": 0.01, "verdict": verdict}
    return found


@functools.cache
def measured(name: str) -> dict:
    return evaluation(name, predictions(name, 40))


def said(comparisons: dict | None = None, overlap: int = 0, **changes) -> Findings:
    """Findings on made-up metrics; `changes` are of the configuration."""
    chosen = settings(**changes)
    results = Results(
        scores={name: measured(name) for name in chosen.models},
        predictions={},
        guessing=FOUR,
        verifications={kind: verification(kind) for kind in chosen.export.verified},
        data=data_counts(overlap),
        base=read_json(ROOT / "metrics/base.json"),
        tokens=read_json(ROOT / "metrics/tokenize.json"),
        training=read_json(ROOT / "metrics/train.json"),
    )
    pairs = ("tuned against base", *(f"{name} against tuned" for name in chosen.export.verified))
    comparisons = {pair: comparison() for pair in pairs} | (comparisons or {})
    gates = [Gate("a gate", PASS, "observed")]
    return find(chosen, results, comparisons, gates)


def test_a_sentence_claims_what_the_verdicts_say():
    found = comparison(perplexity="better", bleu="better", accuracy="worse")
    assert sentence("base", "tuned", found) == (
        "Against base, tuned is better in perplexity and BLEU-4 and worse in MedQA by full text; no difference is "
        "shown in bits per byte, ROUGE-L, chrF, MedQA by letter and MedQA as generated."
    )
    assert sentence("tuned", "q8_0", comparison()) == (
        "Between tuned and q8_0 no difference is shown in any of 8 measures."
    )
    few = dict.fromkeys(EXAM_MEASURES, TOO_FEW)
    untold = "; too few dialogues or questions to tell in MedQA by full text, MedQA by letter and MedQA as generated."
    assert sentence("tuned", "q8_0", comparison(**few)) == (
        f"Between tuned and q8_0 no difference is shown in any of 5 measures{untold}"
    )
    assert sentence("base", "tuned", comparison(**few, chrf="worse")).endswith(f"BLEU-4 and ROUGE-L{untold}")
    assert sentence("base", "tuned", comparison(**dict.fromkeys(MEASURES, TOO_FEW))) == (
        "Between base and tuned too few dialogues and questions were asked to tell a difference."
    )
    rows = tables.differences_table({"tuned against base": comparison(**few)}).rows
    assert rows[5] == ("tuned against base", "MedQA by full text", TOO_FEW, "+12.5 pp", "none", "none")


def test_better_is_said_only_where_the_interval_leaves_out_zero():
    assert "better" not in results_markdown(said())
    found = comparison(chrf="better", perplexity="better", bleu="worse")
    text = results_markdown(said({"q4_K_M against tuned": found}))
    rows = [line.split(" | ") for line in text.splitlines() if " against " in line and line.startswith("|")]
    assert len(rows) == 3 * len(MEASURES) and sum("better" in row for row in rows) == 2
    for row in rows:
        low, high = (float(end.replace("−", "-")) for end in row[4].split(" to "))
        assert (row[2] in ("better", "worse")) == (low * high > 0), row
    told = [line for line in text.splitlines() if "better" in line and not line.startswith("|")]
    assert told == [
        "Against tuned, q4_K_M is better in perplexity and chrF and worse in BLEU-4; no difference is shown in bits "
        "per byte, ROUGE-L, MedQA by full text, MedQA by letter and MedQA as generated."
    ]


@pytest.mark.parametrize("scale", [1, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("measure", MEASURES)
def test_an_interval_without_zero_does_not_read_as_one_with_zero(measure, scale):
    found = {"difference": 3.1 * scale, "low": 1.2 * scale, "high": 4 * scale}
    _, ends = formatting.difference(measure, found)
    assert all(float(end) > 0 for end in ends.split(" to "))
    _, ends = formatting.difference(measure, {key: -number for key, number in found.items()})
    assert all(end.startswith("−") for end in ends.split(" to "))


def test_what_was_not_measured_is_said():
    e = evaluation("tuned", predictions("tuned", 40))
    for key in ("chrf", "generated_accuracy", "unparseable", "stopped", "by_step", "calibration", "chosen"):
        del e[key]
    del e["safety"]["dose"], e["bleu_low"]
    whole = evaluation("base", predictions("base", 40))
    both = {"base": whole, "tuned": e}
    row = dict(zip(tables.models_table(both).header, tables.models_table(both).rows[1], strict=True))
    assert row["chrF ↑"] == row["ends with EOS"] == "not measured" and row["BLEU-4 ↑"] == f"{e['bleu']:.1f}"
    assert tables.medqa_table(both).rows[1][3:5] == ("not measured", "not measured")
    assert [row[4] for row in tables.safety_table(both).rows if row[0] == "dose"] == ["not measured"] * 4
    assert [row for row in tables.steps_table(both).rows if row[0] == "tuned"] == [("tuned", *["not measured"] * 5)]
    verified = {"f16": verification("f16"), "q4_K_M": verification("q4_K_M")}
    for name, picture in charts.pictures(both, verified, FOUR, list(both)).items():
        assert name == "quants" or "not measured" in picture.together()
    missing = {key: found for key, found in comparison().items() if key != "bleu"}
    rows = tables.differences_table({"tuned against base": missing}).rows
    assert len(rows) == len(MEASURES) and rows[2] == ("tuned against base", "BLEU-4", *["not measured"] * 4)
    assert tables.shuffled_table({"base": whole | {"shuffled": {"repeats": 0}}}).rows == [
        ("base", "0", *["not measured"] * 3)
    ]


@pytest.mark.parametrize(
    ("chances", "steps"), [({"step1": 0.25, "step2&3": 0.25}, [25]), ({"step1": 0.2, "step2&3": 1 / 3}, [20, 100 / 3])]
)
def test_pictures_have_a_line_where_guessing_gets(chances, steps):
    """By step a line for each level, between all questions one for their mean."""

    def lines(panel, **about) -> list[float]:
        _, axes = plt.subplots()
        panel(axes, {"tuned": measured("tuned")}, **about)
        return [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]

    assert lines(charts.by_step, measure="accuracy", chances=chances) == pytest.approx(steps)
    assert lines(charts.intervals, measure="accuracy", chance=0.27) == pytest.approx([27])
    assert lines(charts.intervals, measure="bleu", chance=0.27) == []
    plt.close("all")


def test_only_what_was_trained_on_is_counted_as_such():
    counts = {"dialogues": 1217, "too_long": 127, "cut": 0, "label_tokens": 5000}
    left_out = "1,090 dialogues (longer than 256 tokens: 127 left out), 5,000 tokens of answers"
    assert trained_on(counts, 256) == left_out
    assert trained_on(counts | {"cut": 3}, 256) == left_out.replace(": ", ": 3 cut to their first turns, ")
    assert trained_on(counts | {"too_long": 0}, 256) == "1,217 dialogues, 5,000 tokens of answers"


def test_questions_that_stand_twice_are_said_to():
    assert measured_lines({"tuned": measured("tuned")})["measured on"].endswith(" 40 MedQA questions")
    twice = measured("tuned") | {"distinct_questions": 30}
    assert measured_lines({"tuned": twice})["measured on"].endswith(" 40 MedQA questions, 30 of them distinct")


def test_contamination_lights_up():
    clean = results_markdown(said())
    assert "\nNo contamination found: 0 of 400 MedQA test questions and 0 of 143 test dialogues" in clean
    found = said(overlap=2)
    assert not found.clean and "\n**CONTAMINATED: 2 of 400 MedQA test questions" in results_markdown(found)


def test_the_recipes_claims_stand_beside_figures_of_the_8b_model_on_real_data_only():
    assert {row[-1] for row in said().tables["claims"].rows} == {NOT_HERE}
    assert {row[-1] for row in said(model__name="llama3-8b-instruct").tables["claims"].rows} == {NOT_HERE}
    found = said(model__name="llama3-8b-instruct", data__synthetic=False)
    ours = {row[:2]: row[-1] for row in found.tables["claims"].rows}
    perplexity = dict(zip(found.tables["models"].header, found.tables["models"].rows[1], strict=True))["perplexity ↓"]
    assert ours["perplexity", "tuned"] == perplexity and re.fullmatch(r"[\d.]+ \([\d.]+–[\d.]+\)", perplexity)
    assert ours["size", "q4_K_M"] == "0.00 GiB" and NOT_HERE not in ours.values()
    assert "Synthetic" not in results_markdown(found)


def test_the_base_is_named_as_what_it_is():
    about = {"parameters": 134_515_008, "dequantised_from": "Q4_1"}
    small = "The base, smollm2-135m, has 134.5 million weights: a small general model, research material. "
    assert base_line("smollm2-135m", about) == small + "They were quantised to Q4_1 before they came here."
    about = {"parameters": 8_030_261_248, "dequantised_from": None}
    assert base_line("llama3-8b-instruct", about) == "The base, llama3-8b-instruct, has 8.0 billion weights."
    assert said().base in results_markdown(said())


def test_fallbacks_say_to_which_type_and_where():
    verified = {name: verification(name) for name in ("f16", "q4_K_M")}
    assert [row[-1] for row in tables.verification_table(verified).rows] == ["none", "2 Q5_0 (attn_q)"]


def test_a_bar_in_a_cell_stays_in_its_cell():
    assert table_lines(Table(("a",), [("x|y",)])) == ["| a |", "| --- |", "| x\\|y |"]


def test_costs_are_in_the_pipelines_order():
    names = stage_names(ROOT / "dvc.yaml", ROOT / "params.yaml")
    stages = list(read_yaml(ROOT / "dvc.yaml", dict)["stages"])
    assert [*dict.fromkeys(name.split("@")[0] for name in names), "report"] == stages
    assert {"quantize@q4_K_M", "verify@f16", "predict@base", "score@q4_K_M"} < set(names)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (999_960, "1.0 MB"), (4_240_768, "4.2 MB"), (16.1e9, "16.10 GB")],
)
def test_sizes(count, text):
    assert formatting.size(count) == text


def test_p_values():
    assert [formatting.p_value(p) for p in (0, 0.00099, 0.04, 1)] == ["<0.001", "<0.001", "0.040", "1.000"]
