"""How like their references the answers are: BLEU-4, chrF, ROUGE-L.

Each measure is a function of sums over the answers, so that a resample of answers is a sum with other weights.
"""

import logging
from functools import cache

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF


@cache
def scorer(measure: str) -> BLEU | CHRF:
    """BLEU-4 as sacreBLEU has it (Post 2018, arXiv:1804.08771), or its chrF (Popović 2015), with its defaults."""
    return {"bleu": BLEU, "chrf": CHRF}[measure]()


def signature(measure: str, rows: list[dict]) -> str:
    """What the figure must be quoted with; known once sacreBLEU has seen references."""
    counts(measure, rows[:1])
    return str(scorer(measure).get_signature())


def counts(measure: str, rows: list[dict]) -> np.ndarray:
    """What sacreBLEU counts in each answer, shape (answers, counts)."""
    answers, references = [row["answer"] for row in rows], [row["reference"] for row in rows]
    # sacreBLEU's own significance test goes through these two methods as well.
    return np.array(scorer(measure)._extract_corpus_statistics(answers, [references]))


def of_counts(measure: str, sums: np.ndarray) -> np.ndarray:
    """The corpus score, 0 to 100, of each row of summed counts."""
    return np.array([scorer(measure)._compute_score_from_stats(row.tolist()).score for row in sums])


def rouge_l(rows: list[dict]) -> np.ndarray:
    """ROUGE-L F1 (Lin 2004) of each answer, 0 to 1, as the package rouge-score gives it without stemming."""
    logging.getLogger("absl").setLevel(logging.WARNING)  # it would say which tokenizer it takes
    rouge = RougeScorer(["rougeL"])
    return np.array([rouge.score(row["reference"], row["answer"])["rougeL"].fmeasure for row in rows])
