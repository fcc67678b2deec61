"""The report's words: titles, and how each table is to be read."""

from stages.lib.evaluation.metrics.bootstrap import FEWEST
from stages.lib.evaluation.metrics.exams import Guessing
from stages.lib.rendering.prose import listed
from stages.lib.reporting import published

SYNTHETIC = "Synthetic data: these figures show that the pipeline works. They say nothing about medicine."
NOT_A_DEVICE = "Not a medical device. Nothing here is medical advice."
TITLES = {
    "gates": "Quality gates",
    "models": "Models",
    "differences": "Paired differences",
    "medqa": "MedQA",
    "steps": "MedQA by step",
    "letters": "MedQA, letters chosen",
    "shuffled": "MedQA with shuffled options",
    "safety": "Safety",
    "verified": "The GGUFs",
    "claims": "The recipe's claims beside ours",
}
NOTES = {
    "gates": (
        f"From `evaluate.gates` in `conf/evaluate`. Too few to tell: of fewer than {FEWEST} dialogues or distinct "
        "questions. The report fails where a gate does not pass and `strict` is true."
    ),
    "models": (
        f"In brackets, 95 % intervals: by bootstrap, of at least {FEWEST} dialogues; of the share that ends with EOS, "
        "Wilson's; ↑ more is wanted, ↓ less. Perplexity and bits per byte are of "
        "the test dialogues' answers, weighted by tokens; bits per byte compares models of different vocabulary. "
        "BLEU-4 (sacreBLEU), ROUGE-L and chrF are of greedy answers to the same dialogues. Intervals of two models "
        "may overlap and their paired difference be shown all the same: read the next table for that."
    ),
    "differences": (
        "Both models answer the same dialogues and questions, so the difference is taken on each of them: its 95 % "
        "interval by paired bootstrap; p by McNemar's test for MedQA, by paired bootstrap for the rest, not "
        "corrected for the number of rows; pp are percentage points. A verdict is given only where the interval "
        f"leaves out 0. Of fewer than {FEWEST} dialogues or distinct questions there is no interval, no p and no "
        "verdict: too few to tell. A question that stands twice counts as one."
    ),
    "medqa": (
        "Accuracy, in brackets Wilson's 95 % interval, for which a question that stands twice counts as one. By full "
        "text: the option whose whole answer (“B. text”) has the highest log-likelihood. By letter: of the letter "
        "alone, as published figures are measured. As generated: the letter at the start of the greedy answer; "
        "unparseable ones count as wrong. Guessing gives {guessing}. Calibration error: how far, on average, the "
        "probability of the chosen letter is from accuracy (ECE, 10 bins)."
    ),
    "steps": "The exam's step that a question comes from.",
    "letters": (
        "Questions for which each letter was chosen, beside those for which it is correct: a model that knows nothing"
        " but has a favourite shows it here."
    ),
    "shuffled": (
        "The options in other orders, the mean of all: a model that reads them scores the same and chooses the same"
        " option again."
    ),
    "safety": (
        "Answers in which a pattern was found, out of the prompts of that kind. Patterns are literal and miss what "
        "is said in other words; the table is to be read, and is not a score."
    ),
    "verified": (
        "How far the next-token predictions on test dialogues are from the merged model's (f16) or f16's (the "
        "others): Kullback-Leibler divergence in nats, its mean and 99th percentile; positions with the same most "
        "likely token (top-1 agreement); the perplexity over that model's (± standard error). "
        "Fallbacks: matrices whose rows do not divide by 256, and the type of smaller blocks that they got instead."
    ),
    "claims": published.NOTE,
}


def notes_of(guessing: Guessing) -> dict[str, str]:
    """How each table is to be read, with what guessing gives: of each step too, where it is not the same in all."""
    by_step = [f"{_percent(chance)} in {step or 'the others'}" for step, chance in guessing.by_step.items()]
    differs = len(set(guessing.by_step.values())) > 1
    steps = f" Guessing gives {listed(by_step)}." if differs else ""
    medqa = NOTES["medqa"].format(guessing=_percent(guessing.overall))
    return NOTES | {"medqa": medqa, "steps": NOTES["steps"] + steps}


def _percent(chance: float) -> str:
    return f"{100 * chance:.3g} %"
