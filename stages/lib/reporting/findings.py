"""results.md, and what it shares with the page: the tables, how to read them, what may be said in one sentence."""

from typing import NamedTuple

from stages.lib import claims
from stages.lib.data_schema import Data
from stages.lib.decontaminate import OVERLAP
from stages.lib.figures import MEASURES, listed
from stages.lib.notes import NOT_A_DEVICE, NOTES, SYNTHETIC, TITLES
from stages.lib.schema import Model
from stages.lib.tables import (
    Table,
    differences_table,
    gates_table,
    letters_table,
    medqa_table,
    models_table,
    safety_table,
    shuffled_table,
    steps_table,
    verification_table,
)
from stages.lib.train_schema import Train


class Findings(NamedTuple):
    """What the report says, in results.md, on the page and in the model's card alike."""

    what: dict[str, str]  # was run
    synthetic: bool
    clean: bool  # no test record was seen in training
    contamination: str  # the line that says so
    sentences: list[str]
    tables: dict[str, Table]
    checks: list[str]  # of the float16 GGUF


def what_was_run(
    data: str, model: Model, template: str, train: Train, types: list[str], seed: int, tokens: dict, trained: dict
) -> dict[str, str]:
    """Configuration and size of the run; no date and no machine, so that the same run reads the same."""
    source = f"{model.hub.repo} @ {model.hub.revision}" if model.hub else "trained from scratch"
    rank = "" if train.method == "full" else f", r={train.lora.r}"
    held = "" if train.quantization == "none" else f" on a base held in {train.quantization}"
    rows, steps = tokens["train"], f"{trained['steps']:,} steps, validation loss {trained['eval_loss']:.3f}"
    return {
        "data": data,
        "model": f"{model.name} ({source})",
        "template": template,
        "training": f"{train.method}{rank}{held}, {train.num_train_epochs} epochs, "
        f"learning rate {train.learning_rate:g}",
        "trained on": f"{rows['dialogues']:,} dialogues, {rows['trained_tokens']:,} tokens of answers; {steps}",
        "quant types": ", ".join(types),
        "seed": str(seed),
    }


def measured_on(evaluations: dict[str, dict]) -> dict[str, str]:
    """How much was measured, and the signatures of BLEU and chrF; the same for every model."""
    e = next(iter(evaluations.values()))
    return {
        "measured on": f"{e['dialogues']:,} test dialogues ({e['answer_tokens']:,} tokens of answers), "
        f"{e['answers']:,} greedy answers, {e['questions']:,} MedQA questions",
        "BLEU": f"`{e['bleu_signature']}`",
        "chrF": f"`{e['chrf_signature']}`",
    }


def contamination(overlap: dict[str, int], rows: dict[str, int]) -> tuple[bool, str]:
    """Whether no test record shares OVERLAP words in a row with a training text, and the line that says so."""
    names = {"medqa_test": "MedQA test questions", "test": "test dialogues"}
    counts = listed([f"{count} of {rows[name]:,} {names.get(name, name)}" for name, count in overlap.items()])
    shares = f"{counts} share {OVERLAP} words in a row with a training or validation text"
    clean = not any(overlap.values())
    return (
        clean,
        f"No contamination found: {shares}." if clean else f"CONTAMINATED: {shares}; their scores are worth nothing.",
    )


def sentence(other: str, one: str, found: dict[str, dict]) -> str:
    """What the intervals allow to be said of `other` against `one`."""
    groups = {verdict: [] for verdict in ("better", "worse", "no difference shown")}
    for key, shown in MEASURES.items():
        if key in found:
            groups[found[key]["verdict"]].append(shown.label)
    better, worse, same = groups.values()
    parts = [f"{verdict} in {listed(some)}" for verdict, some in (("better", better), ("worse", worse)) if some]
    if not parts:
        return f"Between {one} and {other} no difference is shown in any of {len(same)} measures."
    rest = f"; no difference is shown in {listed(same)}" if same else ""
    return f"Against {one}, {other} is {' and '.join(parts)}{rest}."


def findings(
    data: Data,
    model: str,
    what: dict[str, str],
    evaluations: dict[str, dict],
    comparisons: dict[str, dict],
    verifications: dict[str, dict],
    judged: list[dict],
    counts: dict,
    sizes: dict[str, int],
) -> Findings:
    """All that the report says; `counts` are metrics/data.json, `sizes` the GGUFs' bytes by type."""
    rows = {name: split["rows"] for name, split in counts["splits"].items()}
    clean, line = contamination(counts["overlap"], rows)
    quantised = [pair for pair in comparisons if pair.split(" ")[0] not in ("tuned", "f16")]
    return Findings(
        what=what | measured_on(evaluations),
        synthetic=data.synthetic,
        clean=clean,
        contamination=line,
        sentences=[
            sentence(*pair.split(" against "), comparisons[pair]) for pair in ("tuned against base", *quantised)
        ],
        tables={
            "gates": gates_table(judged),
            "models": models_table(evaluations),
            "differences": differences_table(comparisons),
            "medqa": medqa_table(evaluations),
            "steps": steps_table(evaluations),
            "letters": letters_table(evaluations),
            "shuffled": shuffled_table(evaluations),
            "safety": safety_table(evaluations),
            "verified": verification_table(verifications, sizes),
            "claims": claims.claims_table(model, data.synthetic, evaluations, verifications, sizes),
        },
        checks=[f"{c['check']}: {c['seen']}" for v in verifications.values() for c in v["checks"]],
    )


def results_markdown(found: Findings) -> str:
    """results.md: what was run, what may be said of it, the tables, how to read them."""
    lines = ["# Results", "", *([f"**{SYNTHETIC}**", ""] if found.synthetic else [])]
    lines += [found.contamination if found.clean else f"**{found.contamination}**", ""]
    lines += [f"- {key}: {value}" for key, value in found.what.items()]
    lines += ["", *found.sentences]
    for name, table in found.tables.items():
        lines += ["", f"## {TITLES[name]}", "", *markdown(table), "", NOTES[name]]
        if name == "verified":
            lines += ["", "Of f16, all of this held:", "", *(f"- {line}" for line in found.checks)]
    return "\n".join([*lines, "", NOT_A_DEVICE, ""])


def markdown(table: Table) -> list[str]:
    """A table's lines in Markdown."""
    rows = (table.header, ("---",) * len(table.header), *table.rows)
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in rows]
