"""What the report says of figures: nothing that the intervals do not allow, and nothing left out in silence."""

import functools
import re

import pytest
import yaml

from conftest import ROOT
from evaluated import evaluation, predictions, settings, verification
from stages.lib import costs, evaluation_drawing, figures, tables
from stages.lib.claims import NOT_HERE
from stages.lib.files import read_json
from stages.lib.results import findings, markdown, results_markdown, sentence, what_was_run
from stages.lib.tables import Table


def comparison(**verdicts: str) -> dict[str, dict]:
    """A comparison whose measures show no difference but for those named."""
    ends = {"better": (0.02, 0.04), "worse": (-0.04, -0.02), "no difference shown": (-0.01, 0.02)}
    found = {}
    for measure, shown in figures.MEASURES.items():
        verdict = verdicts.get(measure, "no difference shown")
        low, high = ends[verdict] if shown.wanted == "↑" else sorted(-end for end in ends[verdict])
        found[measure] = {"difference": (low + high) / 2, "low": low, "high": high, "p": 0.01, "verdict": verdict}
    return found


@functools.cache
def measured(name: str) -> dict:
    return evaluation(name, predictions(name, 40))


def said(comparisons: dict | None = None, overlap: int = 0, **changes):
    """Findings on made-up metrics; `changes` are of the configuration."""
    chosen = settings(**changes)
    evaluations = {name: measured(name) for name in chosen.evaluate.models}
    comparisons = comparisons or {f"{name} against tuned": comparison() for name in chosen.export.verified}
    counts = read_json(ROOT / "metrics/data.json") | {"overlap": {"medqa_test": overlap, "test": 0}}
    verifications = {kind: verification(kind) for kind in chosen.export.verified}
    sizes = {"f16": 16_100_000_000, "q4_K_M": 4_900_000_000}
    read = [read_json(ROOT / f"metrics/{name}.json") for name in ("tokenize", "train")]
    data, types = chosen.data, chosen.export.types
    what = what_was_run(data.name, chosen.model, "chatml", chosen.train, types, chosen.seed, *read)
    return findings(
        data, chosen.model.name, what, evaluations, {"tuned against base": comparison()} | comparisons, verifications,
        [{"gate": "a gate", "passes": True, "seen": "seen"}], counts, sizes,
    )  # fmt: skip


def test_a_sentence_claims_what_the_verdicts_say():
    found = comparison(perplexity="better", bleu="better", exact_match="worse")
    assert sentence("tuned", "base", found) == (
        "Against base, tuned is better in perplexity and BLEU-4 and worse in MedQA by answer; no difference is shown "
        "in bits per byte, ROUGE-L, chrF, MedQA by letter and MedQA as generated."
    )
    assert sentence("q8_0", "tuned", comparison()) == (
        "Between tuned and q8_0 no difference is shown in any of 8 measures."
    )


def test_better_is_said_only_where_the_interval_leaves_out_zero():
    assert "better" not in results_markdown(said())
    found = comparison(chrf="better", perplexity="better", bleu="worse")
    text = results_markdown(said({"q4_K_M against tuned": found}))
    rows = [line.split(" | ") for line in text.splitlines() if " against " in line and line.startswith("|")]
    assert len(rows) == 16 and sum("better" in row for row in rows) == 2
    for row in rows:
        low, high = (float(end.replace("−", "-")) for end in row[4].split(" to "))
        assert (row[2] in ("better", "worse")) == (low * high > 0), row
    told = [line for line in text.splitlines() if "better" in line and not line.startswith("|")]
    assert told == [
        "Against tuned, q4_K_M is better in perplexity and chrF and worse in BLEU-4; no difference is shown in bits "
        "per byte, ROUGE-L, MedQA by answer, MedQA by letter and MedQA as generated."
    ]


@pytest.mark.parametrize("scale", [1, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("measure", figures.MEASURES)
def test_an_interval_without_zero_does_not_read_as_one_with_zero(measure, scale):
    found = {"difference": 3.1 * scale, "low": 1.2 * scale, "high": 4 * scale}
    _, ends = figures.difference(measure, found)
    assert all(float(end) > 0 for end in ends.split(" to "))
    _, ends = figures.difference(measure, {key: -number for key, number in found.items()})
    assert all(end.startswith("−") for end in ends.split(" to "))


def test_what_was_not_measured_is_said():
    e = evaluation("tuned", predictions("tuned", 40))
    for key in ("chrf", "generated_exact_match", "unparseable", "stopped", "by_step", "calibration", "chosen"):
        del e[key]
    del e["safety"]["dose"], e["bleu_low"]
    whole = evaluation("base", predictions("base", 40))
    both = {"base": whole, "tuned": e}
    row = dict(zip(tables.models_table(both).header, tables.models_table(both).rows[1], strict=True))
    assert row["chrF ↑"] == row["stops by itself"] == "not measured" and row["BLEU-4 ↑"] == f"{e['bleu']:.1f}"
    assert tables.medqa_table(both).rows[1][3:5] == ("not measured", "not measured")
    assert [row[4] for row in tables.safety_table(both).rows if row[0] == "dose"] == ["not measured"] * 4
    assert [row for row in tables.steps_table(both).rows if row[0] == "tuned"] == [("tuned", *["not measured"] * 5)]
    verified = {"f16": verification("f16"), "q4_K_M": verification("q4_K_M")}
    drawn = evaluation_drawing.pictures(both, verified, {"f16": 9, "q4_K_M": 3}, list(both))
    for name, (*inches, panels) in drawn.items():
        svgs = [evaluation_drawing.drawn(*inches, panel) for panel in panels]
        assert name == "quants" or any("not measured" in svg for svg in svgs)
    missing = {key: found for key, found in comparison().items() if key != "bleu"}
    rows = tables.differences_table({"tuned against base": missing}).rows
    assert len(rows) == 8 and rows[2] == ("tuned against base", "BLEU-4", *["not measured"] * 4)
    assert tables.shuffled_table({"base": whole | {"shuffled": {"repeats": 0}}}).rows == [
        ("base", "0", *["not measured"] * 3)
    ]


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
    assert ours["size", "q4_K_M"] == "4.56 GiB" and NOT_HERE not in ours.values()
    assert "Synthetic" not in results_markdown(found)


def test_a_bar_in_a_cell_stays_in_its_cell():
    assert markdown(Table(("a",), [("x|y",)])) == ["| a |", "| --- |", "| x\\|y |"]


def test_costs_are_in_the_pipelines_order(tmp_path):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    names = costs.read_costs(tmp_path, ["q4_K_M"], ["f16", "q4_K_M"], ["base", "tuned"])
    assert [*dict.fromkeys(name.split("@")[0] for name in names), "report"] == list(stages)
    assert set(names.values()) == {None}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.97, "1 min 00 s"), (119.7, "2 min 00 s"),
                          (3599.6, "1 h 00 min"), (39_600, "11 h 00 min")],
)  # fmt: skip
def test_durations(seconds, text):
    assert figures.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (999_960, "1.0 MB"), (4_240_768, "4.2 MB"), (16.1e9, "16.10 GB")],
)
def test_sizes(count, text):
    assert figures.size(count) == text


def test_p_values():
    assert [figures.p_value(p) for p in (0, 0.00099, 0.04, 1)] == ["<0.001", "<0.001", "0.040", "1.000"]
