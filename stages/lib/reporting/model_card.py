"""models/CARD.md: the model's card in the format of the Hugging Face Hub."""

from pathlib import Path

import yaml

from stages.lib.evaluation.metrics.measures import EXAM_MEASURES, MEASURES, TEXT_MEASURES
from stages.lib.rendering.templates import render
from stages.lib.reporting.findings import Findings
from stages.lib.reporting.lineage import lineage_groups
from stages.lib.reporting.markdown import table_lines
from stages.lib.reporting.notes import NOT_A_DEVICE, SYNTHETIC
from stages.lib.reporting.results import Results, RunSettings
from stages.lib.settings.model_names import BASE

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


def model_card(settings: RunSettings, results: Results, findings: Findings) -> str:
    """The card's Markdown: front matter with results, then base, data, recipe, results, limits, licence, lineage.

    Format: https://huggingface.co/docs/hub/model-cards.
    """
    front = front_matter(settings, results.scores)
    return render(
        TEMPLATE,
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000),
        model=settings.model,
        data=settings.data,
        findings=findings,
        warning=SYNTHETIC if findings.synthetic else "",
        tables={name: "\n".join(table_lines(table)) for name, table in findings.tables.items()},
        notes=findings.notes,
        lineage=lineage_groups(results.verifications),
        notice=NOT_A_DEVICE,
    )


def front_matter(settings: RunSettings, scores: dict[str, dict]) -> dict:
    """The card's metadata; a base or data set is named only where the hub has it."""
    data = settings.data
    model = settings.model
    hub = list(dict.fromkeys(source.repo for source in data.sources if source.kind == "hub"))
    front: dict[str, object] = {"license": model.licence}
    if data.prepare.language != "any":
        front["language"] = [data.prepare.language]
    if model.hub:
        front["base_model"] = [model.hub.repo]
    if hub:
        front["datasets"] = hub
    front["pipeline_tag"] = "text-generation"
    synthetic = ["synthetic"] if data.synthetic else []
    front["tags"] = ["llama-3", "gguf", settings.train.method, "medical", "chat", *synthetic]
    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"type": data.name, "name": f"{part} of {data.name}", "split": "test"},
            "metrics": [
                {"type": MEASURES[key].hub_type, "name": f"{MEASURES[key].label}, {name}", "value": score[key]}
                for name, score in scores.items()
                if name != BASE
                for key in measures
                if key in score and MEASURES[key].hub_type
            ],
        }
        for part, measures in (("dialogues", TEXT_MEASURES), ("MedQA questions", EXAM_MEASURES))
    ]
    return front | {"model-index": [{"name": f"llama3-chat-doctor, {model.name}", "results": results}]}
