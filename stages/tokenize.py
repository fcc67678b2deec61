"""tokenize: dialogues to packed sequences of token ids, labels and position ids."""

import logging
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_jsonl, replacing, write_json
from stages.lib.core.stage import run
from stages.lib.model import chat
from stages.lib.model.loading import load_tokenizer
from stages.lib.training.packing import pack

CHUNK = 2000  # dialogues that are tokenised together, on every core


def main(max_length: int, prepared: Path, base: Path, tokenized: Path, metrics_file: Path) -> None:
    """Render, label and pack the train and validation splits into Arrow data sets of sequences of `max_length`."""
    tokenizer = load_tokenizer(base)
    counts = {}
    with replacing(tokenized) as folder:
        for split in ("train", "validation"):
            source = prepared / f"{split}.jsonl"
            dialogues = [dialogue for _, dialogue in read_jsonl(source)]
            examples = tokenized_dialogues(tokenizer, dialogues, split)
            by_source: dict[str, list[int]] = {}
            for i, (ids, _) in enumerate(examples):
                if len(ids) <= max_length:
                    by_source.setdefault(dialogues[i]["source"], []).append(i)
            if not by_source:
                raise UserError(
                    f"{source}: none of {len(examples)} dialogues fits train.max_length={max_length} tokens; raise it"
                )
            # Each source apart: a batch may be one sequence, and the few tokens of a question's answer would count for
            # nothing beside those of dialogues; the letters of the options are then not learnt.
            parts, label_tokens = [], 0
            for own in by_source.values():
                columns, members = pack([examples[i] for i in own], max_length, tokenizer.pad_token_id)
                record_ids = [[dialogues[own[i]]["id"] for i in documents] for documents in members]
                parts.append(Dataset.from_dict(columns | {"record_ids": record_ids}))
                label_tokens += int((columns["labels"] != chat.IGNORED).sum())
            sequences = concatenate_datasets(parts)
            sequences.save_to_disk(folder / split)

            tokens = {name: sum(len(examples[i][0]) for i in own) for name, own in by_source.items()}
            counts[split] = {
                "dialogues": len(examples),
                "too_long": len(examples) - sum(map(len, by_source.values())),
                "sequences": len(sequences),
                "tokens": sum(tokens.values()),
                "label_tokens": label_tokens,
                "packing_efficiency": sum(tokens.values()) / (len(sequences) * max_length),
                "tokens_by_source": tokens,
            }
            logging.info("%s: %s", split, counts[split])
    write_json(metrics_file, counts)


def tokenized_dialogues(
    tokenizer: PreTrainedTokenizerBase, dialogues: list[dict], split: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(input_ids, labels) of each dialogue, with a progress bar that names the split."""
    examples = []
    for start in tqdm(range(0, len(dialogues), CHUNK), desc=f"{split}, {CHUNK} dialogues a step"):
        messages = [dialogue["messages"] for dialogue in dialogues[start : start + CHUNK]]
        examples += chat.training_examples(tokenizer, messages)
    return examples


if __name__ == "__main__":
    run(
        main,
        sections=("train.max_length",),
        paths=(paths.PREPARED, paths.BASE, paths.TOKENIZED, paths.METRICS / "tokenize.json"),
    )
