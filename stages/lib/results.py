"""The results table: one row a model."""

HEADER = ("model", "perplexity", "BLEU-4", "MedQA, answer", "MedQA, letter", "stops by itself")
NOTES = (
    "Perplexity of the test dialogues' answers (± standard error). BLEU-4 is sacreBLEU over greedy answers. "
    "MedQA, answer: share of test questions whose right option has the most likely whole answer (“B. text”); "
    "MedQA, letter: the same by the letter alone, as published figures are measured. Guessing gives 25 %."
)
VERIFIED = (
    "GGUF",
    "divergence, mean",
    "divergence, 99 %",
    "same top token",
    "perplexity ratio",
    "tensors",
    "fallbacks",
)
DIVERGENCE = (
    "How far the next-token predictions on test dialogues are from the merged model's (f16) or f16's (the others): "
    "Kullback-Leibler divergence in nats, its mean and 99th percentile; positions with the same most likely token; the "
    "perplexity to that model's (± standard error). Fallbacks: matrices whose rows do not divide by 256, which the "
    "quantizer gives a type of smaller blocks."
)
SYNTHETIC = "Synthetic data: these figures show that the pipeline works. They say nothing about medicine."


def results_rows(evaluations: list[dict]) -> list[tuple[str, ...]]:
    """The table's cells as text, one row an evaluated model."""
    return [
        (
            e["name"],
            f"{e['perplexity']:.2f} ± {e['perplexity_stderr']:.2f}",
            f"{e['bleu']:.1f}",
            f"{e['exact_match']:.1%} ± {e['exact_match_stderr']:.1%}",
            f"{e['letter_exact_match']:.1%} ± {e['letter_exact_match_stderr']:.1%}",
            f"{e['stopped']:.0%}",
        )
        for e in evaluations
    ]


def verification_rows(verifications: list[dict]) -> list[tuple[str, ...]]:
    """The cells of the second table, one row a verified GGUF."""
    return [
        (
            v["name"],
            f"{v['kl_mean']:.1e}",
            f"{v['kl_p99']:.1e}",
            f"{v['same_top']:.2%}",
            f"{v['perplexity_ratio']:.4f} ± {v['perplexity_ratio_stderr']:.4f}",
            " ".join(f"{count} {name}" for name, count in v["types"].items()),
            str(v["fallback"]),
        )
        for v in verifications
    ]


def check_lines(verifications: list[dict]) -> list[str]:
    """What was asserted of the float16 GGUF, and what was seen."""
    return [f"{c['check']}: {c['seen']}" for v in verifications for c in v["checks"]]


def results_markdown(
    rows: list[tuple[str, ...]],
    verified: list[tuple[str, ...]],
    checks: list[str],
    what: dict[str, str],
    synthetic: bool,
) -> str:
    """results.md: what was run, the tables, how to read them."""
    lines = ["# Results", ""]
    if synthetic:
        lines += [f"**{SYNTHETIC}**", ""]
    lines += [f"- {key}: {value}" for key, value in what.items()]
    lines += ["", *_table(HEADER, rows), "", NOTES, "", "## The GGUFs", "", *_table(VERIFIED, verified), "", DIVERGENCE]
    lines += ["", "Of f16, all of this held:", "", *(f"- {line}" for line in checks)]
    return "\n".join([*lines, "", "Not a medical device.", ""])


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows)]
