"""The report stage: the same bytes for the same figures, one page that opens offline, gates that can fail."""

import logging
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from stages import report
from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, read_jsonl, write_json, write_jsonl
from stages.lib.reporting.model_card import front_matter
from support.evaluated import evaluation, made, settings
from support.settings import ROOT

TYPES = ("q4_K_M", "q8_0")
PICTURES = [f"plots/report/{name}.svg" for name in ("loss", "models", "steps", "calibration", "letters", "quants")]
WRITTEN = ["results.md", "models/CARD.md", "metrics/comparison.json", "metrics/gates.json", *PICTURES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A report of two quant types, with a patient and a model who write HTML."""
    folder = tmp_path_factory.mktemp("report")
    report.main(*arguments(folder))
    return folder


def arguments(folder: Path) -> tuple:
    """What the stage reads, below `folder`, and its arguments."""
    made_of = made(folder, types=TYPES)
    for file in folder.glob("metrics/models/*/predictions.jsonl"):
        rows = [row for _, row in read_jsonl(file)]
        rows[0]["question"] = "<img src=x onerror=alert(1)> & a cough"
        rows[1] |= {"answer": "</div><script>alert(2)</script>", "stopped": False}
        write_jsonl(file, rows)
    return made_of


def tags(page: str) -> list[tuple[str, dict]]:
    """Every element's name and attributes."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda name, attributes: found.append((name, dict(attributes)))
    parser.feed(page)
    return found


def test_a_mixed_test_set_is_shown_with_its_own_letters_and_level_of_guessing(folder, tmp_path):
    """One step of five options and one of three: guessing gives 20 and 33.3 %, and 26.7 % of as many of both."""
    settings, files = made(tmp_path, questions=40)
    for name in settings.models:
        rows = [row for _, row in read_jsonl(paths.predictions(files.metrics, name))]
        for row in rows:
            if row["kind"] == "medqa":
                count, right = (5, "E") if row["step"] == "step1" else (3, "A")
                row |= {"probabilities": [1 / count] * count, "answer_idx": right, "letter": right, "text": right}
        write_jsonl(paths.predictions(files.metrics, name), rows)
        write_json(paths.scores(files.metrics, name), evaluation(name, rows))
    report.main(settings, files)
    results, plain = (path.read_text() for path in (files.results, folder / "results.md"))
    assert "Guessing gives 20 % in step1 and 33.3 % in step2&3." in results and "% in step1" not in plain
    assert "| tuned | by letter | 20 | 0 | 0 | 0 | 20 |" in results and "| chosen | A | B | C | D |\n" in plain
    assert "| chosen | A | B | C | D | E |\n" in results and ">E</text>" in (files.plots / "letters.svg").read_text()
    assert "Guessing gives 25 %." in plain and ">E</text>" not in (folder / "plots/report/letters.svg").read_text()
    for file in (files.results, files.report, files.card):
        assert "Guessing gives 26.7 %." in file.read_text()


def test_the_same_figures_give_the_same_bytes(folder, tmp_path):
    report.main(*arguments(tmp_path))
    for name in (*WRITTEN, "report.html"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_what_a_stage_took_stays_beside_the_page(folder):
    """The page is the same on every machine: it only says where the figures of this one are."""
    page = (folder / "report.html").read_text()
    expected = {f".cost/{name}.js" for name in ("config", "train", "quantize@q4_K_M", "verify@f16", "score@tuned")}
    sources = [attributes["src"] for name, attributes in tags(page) if name == "script" and "src" in attributes]
    assert expected < set(sources) and not any(source.startswith(".cost/report") for source in sources)
    assert page.count('class="missing">not measured here</td><td></td>') == len(sources)


def test_the_page_opens_offline(folder):
    page = (folder / "report.html").read_text()
    elements = tags(page)
    assert not {name for name, _ in elements} & {"link", "iframe", "img", "base", "object", "embed", "image"}
    assert all(
        attributes.get("src", ".cost/").startswith(".cost/") for name, attributes in elements if name == "script"
    )
    assert not re.search(r"@import|url\((?!#)", page)
    links = [attributes[key] for _, attributes in elements for key in ("href", "xlink:href") if key in attributes]
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(links) > 12
    for link in links:
        assert link[0] == "#" and link[1:] in ids, link


def test_what_a_patient_or_a_model_writes_is_text(folder):
    page = (folder / "report.html").read_text()
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; a cough" in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt; <span" in page and "(cut off)" in page
    assert page.count("<details") == 10 and page.count("<b>q4_K_M</b>") == 10 and "<b>q8_0</b>" not in page


def test_the_page_shows_every_table_of_results_md(folder):
    page, results = ((folder / file).read_text() for file in ("report.html", "results.md"))
    rows = [line.strip("| ").split(" | ") for line in results.splitlines() if line.startswith("| ")]
    assert len(rows) > 100
    for cell in {cell for row in rows for cell in row[1:] if cell != "---"}:
        escaped = cell.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&#39;").replace("\\|", "|")
        assert f">{escaped}</t" in page, cell


def test_pictures_have_a_white_ground_alone_and_the_pages_colours_inside_it(folder):
    for name in PICTURES:
        assert 'id="background"' in (folder / name).read_text()
    page = (folder / "report.html").read_text()
    assert 'id="background"' not in page and "var(--colour)" in page and "currentColor" in page
    assert not re.search(r"<svg(?:(?!</svg>).)*#(000000|2f7d6b|c0622d|777777)", page, flags=re.DOTALL)


def test_the_card_is_one_that_the_hub_reads(folder):
    card = ModelCard((folder / "models/CARD.md").read_text())
    assert card.data.license == "apache-2.0" and card.data.base_model is None and "synthetic" in card.data.tags
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    tuned = read_json(folder / "metrics/models/tuned/scores.json")
    assert results["perplexity, tuned"] == tuned["perplexity"]
    assert results["MedQA by letter, tuned"] == tuned["letter_accuracy"] and "MedQA by full text, q8_0" in results
    text = card.content
    assert "Not a medical device" in text and "1" * 64 in text and "## Limits" in text


def test_a_hub_model_names_its_base_and_data_sets():
    hub = {"repo": "meta-llama/Meta-Llama-3-8B-Instruct", "revision": "8af" + "0" * 37}
    chosen = settings(model__hub=hub, model__gguf=None, model__licence="llama3")
    chosen.data.sources[0].kind, chosen.data.sources[0].repo = "hub", "someone/dialogues"
    front = front_matter(chosen, {})
    assert front["base_model"] == [hub["repo"]] and front["datasets"] == ["someone/dialogues"]
    assert front["license"] == "llama3"


def test_contamination_lights_up_and_strict_gates_fail_after_all_is_written(tmp_path, caplog):
    with caplog.at_level(logging.INFO), pytest.raises(UserError, match=r"gates not passed: .*13-gram.*\(FAIL\)"):
        report.main(*made(tmp_path, overlap=3, questions=40, evaluate__gates__strict=True))
    assert "**CONTAMINATED: 3 of 400 MedQA test questions" in (tmp_path / "results.md").read_text()
    assert '<p class="flag bad">CONTAMINATED: 3' in (tmp_path / "report.html").read_text()
    assert "**CONTAMINATED: 3" in (tmp_path / "models/CARD.md").read_text()
    gates = read_json(tmp_path / "metrics/gates.json")
    lines = [record.message for record in caplog.records if re.match("PASS|FAIL", record.message)]
    assert len(lines) == len(gates) and {seen["result"] for seen in gates.values()} == {"PASS", "FAIL"}
    for (gate, seen), line in zip(gates.items(), lines, strict=True):
        assert line.startswith(f"{seen['result']}: {gate}")
        assert f"| {gate} | {seen['result']} |" in (tmp_path / "results.md").read_text()


def test_failing_gates_that_are_not_strict_end_well(tmp_path):
    report.main(*made(tmp_path, overlap=3, questions=40, evaluate__gates__strict=False))
    assert "FAIL" in {gate["result"] for gate in read_json(tmp_path / "metrics/gates.json").values()}


def test_a_gate_on_too_few_questions_does_not_pass_anywhere(tmp_path, caplog):
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(UserError, match=r"by full text \(too few to tell\); f16 loses"),
    ):
        report.main(*made(tmp_path, questions=8, evaluate__gates__strict=True))
    gate = "tuned is better than base in MedQA by full text"
    assert read_json(tmp_path / "metrics/gates.json")[gate]["result"] == "too few to tell"
    assert f"too few to tell: {gate} (" in caplog.text
    results, page, card = ((tmp_path / name).read_text() for name in ("results.md", "report.html", "models/CARD.md"))
    assert (
        f"| {gate} | too few to tell | " in results and "; distinct questions: 8, at least 30 are needed |" in results
    )
    assert f'<span class="chip none">too few to tell</span>{gate}' in page
    row = "| tuned against base | MedQA by full text | too few to tell |"
    assert row in results and row in card and "too few dialogues or questions to tell in MedQA" in card


def test_every_gguf_is_compared_with_tuned(folder):
    compared = read_json(folder / "metrics/comparison.json")
    assert list(compared) == [
        "tuned against base",
        "tuned against adapter",
        *(f"{kind} against tuned" for kind in ("f16", *TYPES)),
    ]


def test_the_report_needs_no_torch():
    code = "import stages.report, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
