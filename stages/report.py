"""report: the results, as results.md, report.html, pictures and the model's card; and whether they pass the gates."""

import logging
from pathlib import Path
from typing import NamedTuple

from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_text, write_json, write_text
from stages.lib.core.stage import run
from stages.lib.evaluation.metrics.comparison import compare, pair
from stages.lib.reporting.charts import pictures
from stages.lib.reporting.costs import stage_names
from stages.lib.reporting.findings import Comparison, find
from stages.lib.reporting.gates import PASS, Gate, judge
from stages.lib.reporting.loss_curve import loss_curve
from stages.lib.reporting.markdown import results_markdown
from stages.lib.reporting.model_card import model_card
from stages.lib.reporting.page import page
from stages.lib.reporting.results import Results, RunSettings, read_results
from stages.lib.settings.model_names import ADAPTER, BASE, IN_TRANSFORMERS, TUNED

SECTIONS = (
    "data",
    "model",
    "template.name",
    "train",
    "export",
    "evaluate.models",
    "evaluate.gates",
    "seed",
    "conf_digest",
)


class Files(NamedTuple):
    """What the stage reads, then what it writes."""

    metrics: Path
    curve: Path
    data_plots: Path
    pipeline: Path
    plots: Path
    results: Path
    report: Path
    card: Path


def main(settings: RunSettings, files: Files) -> None:
    """Compare the models and judge them, then write it all; raises UserError where a strict gate does not pass."""
    results = read_results(files.metrics, list(settings.models), settings.export.verified)
    comparisons = compare_models(results.predictions)
    gates = judge(settings.gates, results.scores, comparisons, results.data)
    findings = find(settings, results, comparisons, gates)
    write_json(files.metrics / "comparison.json", comparisons)
    write_json(files.metrics / "gates.json", {g.gate: {"result": g.result, "observed": g.observed} for g in gates})
    write_text(files.results, results_markdown(findings))
    write_text(files.card, model_card(settings, results, findings))
    panels = draw(settings, results, files)
    stages = stage_names(files.pipeline, paths.PARAMS)
    write_text(files.report, page(findings, results, settings.export.types[0], panels, settings.conf_digest, stages))
    announce(gates)
    missed = [f"{gate.gate} ({gate.result})" for gate in gates if gate.result != PASS]
    if settings.gates.strict and missed:
        told = "; ".join(missed)
        raise UserError(f"gates not passed: {told}; see {files.results}, or set evaluate.gates.strict=false")


def compare_models(predictions: dict[str, list[dict]]) -> dict[str, Comparison]:
    """The paired comparisons: the tuned model with its base and its adapter, each GGUF with the tuned model."""
    tuned = predictions[TUNED]
    before = [name for name in (BASE, ADAPTER) if name in predictions]
    ggufs = [name for name in predictions if name not in IN_TRANSFORMERS]
    comparisons = {pair(name, TUNED): compare(predictions[name], tuned) for name in before}
    return comparisons | {pair(TUNED, name): compare(tuned, predictions[name]) for name in ggufs}


def draw(settings: RunSettings, results: Results, files: Files) -> dict[str, list[str]]:
    """Write every picture, and return its panels for the page, the data's pictures among them."""
    shown = [BASE, TUNED, settings.export.types[0]]
    panels = {"loss": [loss_curve(read_text(files.curve))]}
    write_text(files.plots / "loss.svg", panels["loss"][0])
    for name, picture in pictures(results.scores, results.verifications, results.guessing, shown).items():
        panels[name] = picture.each()
        write_text(files.plots / f"{name}.svg", picture.together())
    return panels | {name: [read_text(files.data_plots / f"{name}.svg")] for name in ("funnel", "lengths")}


def announce(gates: list[Gate]) -> None:
    """Log each gate."""
    for gate in gates:
        logging.info("%s: %s (%s)", gate.result, gate.gate, gate.observed)


if __name__ == "__main__":
    inputs = (paths.METRICS, paths.PLOTS / "train/loss.csv", paths.PLOTS / "data", paths.PIPELINE)
    outputs = (paths.PLOTS / "report", paths.RESULTS, paths.REPORT, paths.MODEL_CARD)
    run(main, sections=SECTIONS, paths=(*inputs, *outputs))
