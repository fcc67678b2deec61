"""models/CARD.md: the model's card in the format of the Hugging Face Hub."""

from pathlib import Path

import yaml

from stages.lib.data_schema import Data
from stages.lib.figures import MEASURES
from stages.lib.notes import NOT_A_DEVICE, NOTES, SYNTHETIC
from stages.lib.results import Findings, markdown
from stages.lib.schema import Model
from stages.lib.templates import render
from stages.lib.train_schema import Train

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
METRIC_TYPES = {"perplexity": "perplexity", "bleu": "bleu", "rouge_l": "rouge", "chrf": "chrf"}  # the rest: accuracy


def model_card(
    data: Data,
    model: Model,
    train: Train,
    found: Findings,
    evaluations: dict[str, dict],
    lineage: dict[str, dict[str, str]],
) -> str:
    """The card's Markdown: front matter with results, then base, data, recipe, results, limits, licence, lineage.

    Format: https://huggingface.co/docs/hub/model-cards.
    """
    front = front_matter(data, model, train, evaluations)
    return render(
        TEMPLATE,
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000),
        data=data,
        model=model,
        train=train,
        found=found,
        warning=SYNTHETIC if data.synthetic else "",
        tables={name: "\n".join(markdown(table)) for name, table in found.tables.items()},
        notes=NOTES,
        lineage=lineage,
        notice=NOT_A_DEVICE,
    )


def front_matter(data: Data, model: Model, train: Train, evaluations: dict[str, dict]) -> dict:
    """The card's metadata; a base or data set is named only where the hub has it."""
    hub = list(dict.fromkeys(source.repo for source in data.sources if source.kind == "hub"))
    front = {"license": model.licence}
    if data.prepare.language != "any":
        front["language"] = [data.prepare.language]
    if model.hub:
        front["base_model"] = [model.hub.repo]
    if hub:
        front["datasets"] = hub
    front["pipeline_tag"] = "text-generation"
    front["tags"] = ["llama-3", "gguf", train.method, "medical", "chat", *(["synthetic"] if data.synthetic else [])]
    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"type": data.name, "name": f"{part} of {data.name}", "split": "test"},
            "metrics": [
                {"type": METRIC_TYPES.get(key, "accuracy"), "name": f"{MEASURES[key].label}, {name}", "value": e[key]}
                for name, e in evaluations.items()
                if name != "base"
                for key in MEASURES
                if key in e and key != "bits_per_byte" and ("exact_match" in key) == (part == "MedQA questions")
            ],
        }
        for part in ("dialogues", "MedQA questions")
    ]
    return front | {"model-index": [{"name": f"llama3-chat-doctor, {model.name}", "results": results}]}
