"""tokenize: dialogues to packed rows of token ids, labels and position ids."""

import logging
from collections import Counter
from pathlib import Path

from datasets import Dataset
from tqdm import tqdm

from stages.lib import chat, paths
from stages.lib.errors import UserError
from stages.lib.files import read_jsonl, replacing, write_json
from stages.lib.models import load_tokenizer
from stages.lib.packing import pack
from stages.lib.stage import run

CHUNK = 2000  # dialogues that are tokenised together, on every core


def main(end_token: str, max_length: int, prepared: Path, base: Path, tokenized: Path, metrics_file: Path) -> None:
    """Render, label and pack the train and validation splits into Arrow data sets of `max_length` tokens a row."""
    tokenizer = load_tokenizer(base)
    counts = {}
    with replacing(tokenized) as folder:
        for split in ("train", "validation"):
            conversations = [row for _, row in read_jsonl(prepared / f"{split}.jsonl")]
            examples = []
            for start in tqdm(range(0, len(conversations), CHUNK), desc=f"{split}, {CHUNK} dialogues a step"):
                some = [row["messages"] for row in conversations[start : start + CHUNK]]
                examples += chat.training_examples(tokenizer, some, end_token)
            fitting = [i for i, (ids, _) in enumerate(examples) if len(ids) <= max_length]
            if not fitting:
                raise UserError(
                    f"{prepared / split}.jsonl: none of {len(examples)} dialogues fits "
                    f"train.max_length={max_length} tokens; raise it"
                )
            rows, members = pack([examples[i] for i in fitting], max_length, tokenizer.pad_token_id)
            record_ids = [[conversations[fitting[i]]["id"] for i in row] for row in members]
            Dataset.from_dict(rows | {"record_ids": record_ids}).save_to_disk(folder / split)
            tokens = Counter()
            for i in fitting:
                tokens[conversations[i]["source"]] += len(examples[i][0])
            fitting_tokens = tokens.total()
            counts[split] = {
                "dialogues": len(examples),
                "too_long": len(examples) - len(fitting),
                "rows": len(rows["labels"]),
                "tokens": fitting_tokens,
                "trained_tokens": int((rows["labels"] != chat.IGNORED).sum()),
                "fill": fitting_tokens / rows["labels"].size,
                "tokens_by_source": dict(tokens),
            }
            logging.info("%s: %s", split, counts[split])
    write_json(metrics_file, counts)


if __name__ == "__main__":
    run(
        main,
        sections=("template.end_token", "train.max_length"),
        paths=(paths.PREPARED, paths.BASE, paths.TOKENIZED, paths.METRICS / "tokenize.json"),
    )
