"""What the report says, in results.md, on the page and in the model's card alike."""

from typing import NamedTuple

from stages.lib.evaluation.metrics.comparison import TOO_FEW, pair
from stages.lib.evaluation.metrics.measures import MEASURES
from stages.lib.rendering.prose import listed
from stages.lib.reporting import published, tables
from stages.lib.reporting.gates import Gate
from stages.lib.reporting.notes import notes_of
from stages.lib.reporting.results import Results, RunSettings
from stages.lib.reporting.tables import Table
from stages.lib.settings.export import Export
from stages.lib.settings.model_names import BASE, TUNED

SMALL = 1e9  # weights: below, nobody expects sound answers
TEST_SETS = {"medqa_test": "MedQA test questions", "test": "test dialogues"}
Comparison = dict[str, dict]  # by measure: difference, low, high, p, verdict


class Findings(NamedTuple):
    """All that may be said of a run."""

    run: dict[str, str]  # what was run
    synthetic: bool
    base: str  # the line that says what was tuned
    clean: bool  # no test record was seen in training
    contamination: str  # the line that says so
    sentences: list[str]
    tables: dict[str, Table]
    notes: dict[str, str]  # how each table is to be read
    checks: list[str]  # of the float16 GGUF
    comparisons: dict[str, Comparison]
    gates: list[Gate]


def find(settings: RunSettings, results: Results, comparisons: dict[str, Comparison], gates: list[Gate]) -> Findings:
    """Put everything that was measured into words and tables."""
    scores, verifications = results.scores, results.verifications
    clean, contamination = contamination_line(results.data)
    told = [(BASE, TUNED), *((TUNED, kind) for kind in settings.export.types)]
    return Findings(
        run=run_lines(settings, results) | measured_lines(scores),
        synthetic=settings.data.synthetic,
        base=base_line(settings.model.name, results.base),
        clean=clean,
        contamination=contamination,
        sentences=[sentence(one, other, comparisons[pair(one, other)]) for one, other in told],
        tables={
            "gates": tables.gates_table(gates),
            "models": tables.models_table(scores),
            "differences": tables.differences_table(comparisons),
            "medqa": tables.medqa_table(scores),
            "steps": tables.steps_table(scores),
            "letters": tables.letters_table(scores),
            "shuffled": tables.shuffled_table(scores),
            "safety": tables.safety_table(scores),
            "verified": tables.verification_table(verifications),
            "claims": published.claims_table(settings.model.name, settings.data.synthetic, scores, verifications),
        },
        notes=notes_of(results.guessing),
        checks=[f"{check['check']}: {check['observed']}" for v in verifications.values() for check in v["checks"]],
        comparisons=comparisons,
        gates=gates,
    )


def base_line(name: str, about: dict) -> str:
    """How large the base is, what it is good for, and whether it was quantised before it came here."""
    weights = about["parameters"]
    size = f"{weights / 1e9:.1f} billion" if weights >= 1e9 else f"{weights / 1e6:.1f} million"
    small = ": a small general model, research material" if weights < SMALL else ""
    quantised = about["dequantised_from"]
    held = f" They were quantised to {quantised} before they came here." if quantised else ""
    return f"The base, {name}, has {size} weights{small}.{held}"


def run_lines(settings: RunSettings, results: Results) -> dict[str, str]:
    """Settings and size of the run; no date and no machine, so that the same run reads the same."""
    train, training = settings.train, results.training
    rank = "" if train.method == "full" else f", r={train.lora.r}"
    held = "" if train.quantization == "none" else f" on a base held in {train.quantization}"
    return {
        "data": settings.data.name,
        "base": f"{settings.model.name} ({settings.model.source()})",
        "template": settings.template,
        "training": f"{train.method}{rank}{held}, {train.num_train_epochs} epoch{'s' * (train.num_train_epochs != 1)}, "
        f"learning rate {train.learning_rate:g}",
        "trained on": f"{trained_on(results.tokens['train'], train.max_length)}; "
        f"{training['steps']:,} steps, validation loss {training['eval_loss']:.3f}",
        "quant types": _quant_types(settings.export),
        "seed": str(settings.seed),
    }


def trained_on(counts: dict, max_length: int) -> str:
    """How many dialogues were trained on, how many of them were cut, how many were left out, as `tokenize` counted."""
    trained = f"{counts['dialogues'] - counts['too_long']:,} dialogues"
    longer = {"cut to their first turns": counts["cut"], "left out": counts["too_long"]}
    if told := [f"{count:,} {what}" for what, count in longer.items() if count]:
        trained += f" (longer than {max_length:,} tokens: {', '.join(told)})"
    return f"{trained}, {counts['label_tokens']:,} tokens of answers"


def _quant_types(export: Export) -> str:
    others = ", ".join(f"{matrix} in {kind}" for matrix, kind in export.tensor_types.items())
    return ", ".join(export.types) + (f"; {others}" if others else "")


def measured_lines(scores: dict[str, dict]) -> dict[str, str]:
    """How much was measured, and the signatures of BLEU and chrF; the same for every model."""
    score = next(iter(scores.values()))
    repeated = score["distinct_questions"] < score["questions"]
    distinct = f", {score['distinct_questions']:,} of them distinct" if repeated else ""
    return {
        "measured on": f"{score['dialogues']:,} test dialogues ({score['answer_tokens']:,} tokens of answers), "
        f"{score['answers']:,} greedy answers, {score['questions']:,} MedQA questions{distinct}",
        "BLEU": f"`{score['bleu_signature']}`",
        "chrF": f"`{score['chrf_signature']}`",
    }


def contamination_line(data: dict) -> tuple[bool, str]:
    """Whether no test record shares an n-gram of words with a training text, and the line that says so."""
    overlap, n = data["overlap"], data["overlap_words"]
    counts = listed(
        [f"{count} of {data['splits'][name]['rows']:,} {TEST_SETS[name]}" for name, count in overlap.items()]
    )
    shares = f"{counts} share a word {n}-gram with a training or validation text"
    if any(overlap.values()):
        return False, f"CONTAMINATED: {shares}; their scores are worth nothing."
    return True, f"No contamination found: {shares}."


def sentence(one: str, other: str, comparison: Comparison) -> str:
    """What the intervals allow to be said of the model `other` against `one`."""
    labels: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": [], TOO_FEW: []}
    for key, measure in MEASURES.items():
        if key in comparison:
            labels[comparison[key]["verdict"]].append(measure.label)
    same, untold = labels.pop("no difference shown"), labels.pop(TOO_FEW)
    parts = [f"{verdict} in {listed(some)}" for verdict, some in labels.items() if some]
    rest = f"; too few dialogues or questions to tell in {listed(untold)}" if untold else ""
    if parts:
        rest = (f"; no difference is shown in {listed(same)}" if same else "") + rest
        return f"Against {one}, {other} is {' and '.join(parts)}{rest}."
    if same:
        return f"Between {one} and {other} no difference is shown in any of {len(same)} measures{rest}."
    return f"Between {one} and {other} too few dialogues and questions were asked to tell a difference."
