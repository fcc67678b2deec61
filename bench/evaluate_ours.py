"""One run of this project's scorer: `python -m bench.evaluate_ours SETTINGS OUT`, as bench.evaluate asks for it."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from bench.measuring import resident
from bench.processes import fingerprint
from stages.lib.core.files import read_jsonl
from stages.lib.data.medqa import LETTERS
from stages.lib.evaluation.engines.batches import answer_logprobs
from stages.lib.evaluation.engines.language_model import open_model
from stages.lib.evaluation.predict.examples import question_examples
from stages.lib.model.loading import load_tokenizer


def choose(settings: dict, out: Path) -> None:
    """Write the letters that a model chooses, their accuracy, the seconds and what was read.

    `reading_seconds` are those from token ids to log-probabilities, `scoring_seconds` those from text. `closest`: the
    least distance between the two best letters of a question, in natural log-probability.
    """
    base = Path(settings["base"])
    tokenizer = load_tokenizer(base)
    model = open_model(Path(settings["model"]), base, settings["context"], settings["rows"])
    rows = [row for _, row in read_jsonl(Path(settings["questions"]))]
    start = time.perf_counter()
    prompts = [example["prompt_ids"] for example in question_examples(tokenizer, rows, settings["context"])]
    letters = [[tokenizer.convert_tokens_to_ids(letter)] for letter in LETTERS]
    tokenized = time.perf_counter()
    scored = answer_logprobs(model, prompts, [letters] * len(prompts), "MedQA")
    done = time.perf_counter()
    scores = list(map(np.concatenate, scored))
    chosen = [LETTERS[int(np.argmax(one))] for one in scores]
    right = sum(letter == row["answer_idx"] for letter, row in zip(chosen, rows, strict=True))
    seen = {"letters": chosen, "scoring_seconds": done - start, "reading_seconds": done - tokenized}
    seen |= {"accuracy": right / len(rows), "closest": float(np.diff(np.sort(scores))[:, -1].min())}
    seen |= {"read": fingerprint(prompt + letter for prompt in prompts for letter in letters)}
    out.write_text(json.dumps(seen | {"peak": resident()}), encoding="utf-8")


if __name__ == "__main__":
    choose(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
