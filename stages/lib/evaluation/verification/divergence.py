"""How far one model's predictions are from another's, token by token."""

from typing import Protocol

import numpy as np
from tqdm import tqdm

from stages.lib.evaluation.engines.logits import log_softmax
from stages.lib.evaluation.metrics.perplexity import exp_of_mean
from stages.lib.evaluation.verification.check import Check

ROWS = 64  # positions whose probabilities are in memory at a time
TOP1_AGREEMENT = 0.995  # of f16 and the merged model: share of positions, ties included
TIE = 0.02  # nats: two tokens of which the reference takes either for as good as equally likely
KL_MEAN = 1e-4  # of f16 from the merged model: nats
LOGIT_DIFFERENCE = 0.005  # of the merged model and base with adapter: share of the logits' spread


class Logits(Protocol):
    """A model, or what was recorded of one."""

    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits after each of the tokens, float32, shape (tokens, vocabulary)."""
        ...


def measure(reference: Logits, other: Logits, dialogues: list[list[int]]) -> dict[str, float]:
    """Compare the next-token predictions of two models at every position of the dialogues' token ids.

    Kullback-Leibler divergence KL(reference ‖ other) in nats, its mean and its 99th percentile; top-1 agreement, which
    is the share of positions with the same most likely token; the share of those with another one that the reference
    takes for less likely by at most TIE; the other's perplexity over the reference's, with its standard error; the root
    mean square difference of the logits, as a share of the standard deviation that the reference's have at a position,
    which depends neither on the scale of a model's logits nor on how many there are.
    """
    divergences: list[np.ndarray] = []
    agreements = ties = 0
    differences = 0.0  # squared, summed
    spread = 0.0  # squared distances of the reference's logits from their mean at a position, summed
    nats: list[float] = []  # by which the other's loss of a dialogue exceeds the reference's
    counts: list[int] = []
    for ids in tqdm(dialogues, desc="divergence"):
        expected, actual = reference.logits(ids), other.logits(ids)
        best, chosen = expected.argmax(1), actual.argmax(1)
        every = np.arange(len(ids))
        agreements += int((best == chosen).sum())
        ties += int(((best != chosen) & (expected[every, best] - expected[every, chosen] <= TIE)).sum())
        excess = 0.0
        for start in range(0, len(ids), ROWS):
            own, others = expected[start : start + ROWS], actual[start : start + ROWS]
            differences += float(np.square(own - others).sum(dtype=np.float64))
            spread += float(own.var(1, dtype=np.float64).sum()) * own.shape[1]
            p, q = log_softmax(own), log_softmax(others)
            divergences.append((np.exp(p) * (p - q)).sum(1))
            following = ids[start + 1 : start + 1 + ROWS]
            at = np.arange(len(following))
            excess += float((p[at, following] - q[at, following]).sum())
        nats.append(excess)
        counts.append(len(ids) - 1)
    values = np.concatenate(divergences)
    ratio, stderr = exp_of_mean(nats, counts)
    return {
        "kl_mean": float(values.mean()),
        "kl_p99": float(np.quantile(values, 0.99)),
        "top1_agreement": agreements / len(values),
        "top1_ties": ties / len(values),
        "perplexity_ratio": ratio,
        "perplexity_ratio_stderr": stderr,
        "logit_difference": (differences / spread) ** 0.5,
        "positions": len(values),
        "dialogues": len(dialogues),
    }


def top1_agreement(measured: dict[str, float]) -> Check:
    """The float16 GGUF's most likely tokens are the merged model's, but where two are as good as equally likely."""
    agreed, ties = measured["top1_agreement"], measured["top1_ties"]
    observed = f"{agreed:.4%}, {ties:.4%} ties within {TIE:g} nats"
    limit = f"at least {TOP1_AGREEMENT:.1%} together"
    return Check("top-1 agreement with the merged model", agreed + ties >= TOP1_AGREEMENT, observed, limit)


def mean_divergence(measured: dict[str, float], what: str) -> Check:
    """The probabilities are the reference's, but for what float16 rounds; `what` names the two."""
    nats = measured["kl_mean"]
    return Check(f"mean KL divergence {what}", nats < KL_MEAN, f"{nats:.2e} nats", f"under {KL_MEAN:g} nats")


def merged_logits(tuned: Logits, merged: Logits, dialogues: list[list[int]]) -> Check:
    """The merged model's logits are those of the base with its adapter, but for what float16 rounds."""
    difference = measure(tuned, merged, dialogues)["logit_difference"]
    limit = f"at most {LOGIT_DIFFERENCE:g} of their spread"
    return Check("logits before and after merging", difference <= LOGIT_DIFFERENCE, f"{difference:.2e}", limit)
