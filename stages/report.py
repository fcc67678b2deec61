"""report: what came out, as results.md, report.html, pictures and the model's card; and whether it passes the gates."""

import logging
from pathlib import Path

from stages.lib import evaluation_drawing, paths
from stages.lib.comparison import compare
from stages.lib.costs import read_costs
from stages.lib.data_schema import Data
from stages.lib.drawing import inline, loss_curve, side_by_side
from stages.lib.errors import UserError
from stages.lib.files import read_json, read_jsonl, read_text, sha256, write_json, write_text
from stages.lib.gates import gates
from stages.lib.gguf_keys import lineage_of
from stages.lib.model_card import model_card
from stages.lib.page import conversations, key_figures, lineage_rows, page
from stages.lib.results import findings, results_markdown, what_was_run
from stages.lib.schema import Export, Gates, Model
from stages.lib.stage import run
from stages.lib.train_schema import Train


def main(
    data: Data,
    model: Model,
    template: str,
    train: Train,
    export: Export,
    models: dict[str, str],
    gate_settings: Gates,
    seed: int,
    conf_digest: str,
    metrics: Path,
    curve: Path,
    data_plots: Path,
    gguf: Path,
    plots: Path,
    results: Path,
    report: Path,
    card: Path,
    cost: Path = paths.COST,  # what was measured on this machine decides nothing: no dep of the pipeline
) -> None:
    """Compare the models and judge them, then write it all; raises UserError where a gate fails and they are strict."""
    evaluations = {name: read_json(metrics / "evaluate" / f"{name}.json") for name in models}
    predictions = {name: [r for _, r in read_jsonl(metrics / "predictions" / f"{name}.jsonl")] for name in models}
    verifications = {name: read_json(metrics / "verify" / f"{name}.json") for name in export.verified}
    counts, tokens, trained = (read_json(metrics / f"{name}.json") for name in ("data", "tokenize", "train"))
    files = {name: gguf / paths.gguf(name).name for name in export.verified}
    sizes = {name: file.stat().st_size for name, file in files.items()}

    comparisons = {f"tuned against {k}": compare(predictions[k], predictions["tuned"]) for k in ("base", "adapter")}
    comparisons |= {f"{k} against tuned": compare(predictions["tuned"], predictions[k]) for k in export.verified}
    judged = gates(gate_settings, evaluations, comparisons, counts["overlap"])
    write_json(metrics / "comparison.json", comparisons)
    write_json(metrics / "gates.json", {one["gate"]: {"passes": one["passes"], "seen": one["seen"]} for one in judged})

    what = what_was_run(data.name, model, template, train, export.types, seed, tokens, trained)
    found = findings(data, model.name, what, evaluations, comparisons, verifications, judged, counts, sizes)
    write_text(results, results_markdown(found))

    shown = ["base", "tuned", export.types[0]]
    pictures = {"loss": [loss_curve(read_text(curve))]}
    for name, (*inches, panels) in evaluation_drawing.pictures(evaluations, verifications, sizes, shown).items():
        pictures[name] = [evaluation_drawing.drawn(*inches, panel) for panel in panels]
    for name, panels in pictures.items():
        write_text(plots / f"{name}.svg", side_by_side(panels))
    pictures |= {name: [read_text(data_plots / f"{name}.svg")] for name in ("funnel", "lengths")}

    hashes = {file.name: (sizes[name], sha256(file)) for name, file in files.items()}
    lineage = lineage_rows(lineage_of(files["f16"]), hashes)
    write_text(card, model_card(data, model, train, found, evaluations, lineage))
    html = page(
        found,
        key_figures(evaluations, export.types[0], comparisons["tuned against base"]),
        judged,
        {name: [inline(svg) for svg in drawn] for name, drawn in pictures.items()},
        conversations({name: predictions[name] for name in shown}),
        counts,
        read_costs(cost, export.types, export.verified, list(models)),
        {"settings": {"conf_digest": conf_digest}} | lineage,
    )
    write_text(report, html)

    for gate in judged:
        logging.info("%s: %s (%s)", "PASS" if gate["passes"] else "FAIL", gate["gate"], gate["seen"])
    failed = [gate["gate"] for gate in judged if not gate["passes"]]
    if gate_settings.strict and failed:
        raise UserError(f"gates failed: {'; '.join(failed)}; see {results}, or set evaluate.gates.strict=false")


if __name__ == "__main__":
    room = (paths.METRICS, paths.PLOTS / "train/loss.csv", paths.PLOTS / "data", paths.GGUF, paths.PLOTS / "report")
    config = ("data", "model", "template.name", "train", "export", "evaluate.models", "evaluate.gates", "seed")
    run(
        main,
        sections=(*config, "conf_digest"),
        paths=(*room, paths.RESULTS, paths.REPORT, paths.MODEL_CARD),
    )
