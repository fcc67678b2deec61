"""report: what came out, as results.md, report.html and pictures."""

from pathlib import Path

from stages.lib import drawing, paths
from stages.lib.data_schema import Data
from stages.lib.files import read_json, read_jsonl, read_text, write_text
from stages.lib.page import page
from stages.lib.results import check_lines, results_markdown, results_rows, verification_rows
from stages.lib.schema import Export, Model, Train
from stages.lib.stage import run


def main(
    data: Data,
    model: Model,
    template: str,
    train: Train,
    export: Export,
    models: dict[str, str],
    seed: int,
    metrics: Path,
    curve: Path,
    data_plots: Path,
    plots: Path,
    results: Path,
    report: Path,
) -> None:
    """Draw the curves, write the results table and the page that opens offline."""
    evaluations = [read_json(metrics / "evaluate" / f"{name}.json") for name in models]
    what = {
        "data": data.name,
        "model": model.name,
        "template": template,
        "train": f"{train.method}, r={train.lora.r}, {train.num_train_epochs} epochs, "
        f"learning rate {train.learning_rate:g}",
        "quant types": ", ".join(export.types),
        "seed": str(seed),
    }
    rows = results_rows(evaluations)
    pictures = {"loss": drawing.loss_curve(read_text(curve)), "models": drawing.compared(evaluations)}
    for name, svg in pictures.items():
        write_text(plots / f"{name}.svg", svg)
    pictures |= {name: read_text(data_plots / f"{name}.svg") for name in ("funnel", "lengths")}
    verifications = [read_json(metrics / "verify" / f"{name}.json") for name in export.verified]
    verified, checks = verification_rows(verifications), check_lines(verifications)
    write_text(results, results_markdown(rows, verified, checks, what, data.synthetic))
    answers = {name: [r for _, r in read_jsonl(metrics / "predictions" / f"{name}.jsonl")] for name in models}
    shown = [name for name in ("base", "tuned", export.types[0]) if name in answers]
    funnel = read_json(metrics / "data.json")
    talks = {name: answers[name] for name in shown}
    write_text(report, page(rows, verified, checks, what, data.synthetic, pictures, talks, funnel))


if __name__ == "__main__":
    run(
        main,
        sections=("data", "model", "template.name", "train", "export", "evaluate.models", "seed"),
        paths=(
            paths.METRICS,
            paths.PLOTS / "train" / "loss.csv",
            paths.PLOTS / "data",
            paths.PLOTS / "report",
            paths.RESULTS,
            paths.REPORT,
        ),
    )
