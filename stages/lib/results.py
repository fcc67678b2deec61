"""The results table: one row a model."""

HEADER = ("model", "perplexity", "BLEU-4", "MedQA, answer", "MedQA, letter", "stops by itself")
NOTES = (
    "Perplexity of the test dialogues' answers (± standard error). BLEU-4 is sacreBLEU over greedy answers. "
    "MedQA, answer: share of test questions whose right option has the most likely whole answer (“B. text”); "
    "MedQA, letter: the same by the letter alone, as published figures are measured. Guessing gives 25 %."
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


def results_markdown(rows: list[tuple[str, ...]], what: dict[str, str], synthetic: bool) -> str:
    """results.md: what was run, the table, how to read it."""
    lines = ["# Results", ""]
    if synthetic:
        lines += [f"**{SYNTHETIC}**", ""]
    lines += [f"- {key}: {value}" for key, value in what.items()]
    lines += ["", "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", NOTES, "", "Not a medical device.", ""])
