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
MOST_LEFT_OUT = 0.05  # of the dialogues: a warning says so where more of them are too long
Example = tuple[np.ndarray, np.ndarray]  # input_ids and labels of a dialogue


def main(max_length: int, too_long: str, prepared: Path, base: Path, tokenized: Path, metrics_file: Path) -> None:
    """Render, label and pack the train and validation splits into Arrow data sets of sequences of `max_length`.

    A longer dialogue is left out; where `too_long` is "cut", only if not even its first turn fits.
    """
    tokenizer = load_tokenizer(base)
    counts = {}
    with replacing(tokenized) as folder:
        for split in ("train", "validation"):
            source = prepared / f"{split}.jsonl"
            dialogues = [dialogue for _, dialogue in read_jsonl(source)]
            examples = tokenized_dialogues(tokenizer, dialogues, split)
            longer = {i: dialogues[i]["messages"] for i, (ids, _) in enumerate(examples) if len(ids) > max_length}
            cut = cut_to_fit(tokenizer, longer, max_length) if too_long == "cut" else {}
            fitting = {i: cut.get(i, example) for i, example in enumerate(examples) if i in cut or i not in longer}
            if not fitting:
                raise UserError(
                    f"{source}: none of {len(examples)} dialogues fits train.max_length={max_length} tokens; raise it"
                )
            left_out = len(examples) - len(fitting)
            if left_out > MOST_LEFT_OUT * len(examples):
                several = sum(len(messages) > 3 for messages in longer.values()) if too_long == "drop" else 0
                lengths = [len(ids) for ids, _ in examples]
                logging.warning("%s: %s", split, left_out_warning(lengths, left_out, max_length, several))
            sequences, sizes = packed_by_source(fitting, dialogues, max_length, tokenizer.pad_token_id)
            sequences.save_to_disk(folder / split)
            counts[split] = {"dialogues": len(examples), "too_long": left_out, "cut": len(cut), **sizes}
            logging.info("%s: %s", split, counts[split])
    write_json(metrics_file, counts)


def tokenized_dialogues(tokenizer: PreTrainedTokenizerBase, dialogues: list[dict], split: str) -> list[Example]:
    """(input_ids, labels) of each dialogue, with a progress bar that names the split."""
    examples = []
    for start in tqdm(range(0, len(dialogues), CHUNK), desc=f"{split}, {CHUNK} dialogues a step"):
        messages = [dialogue["messages"] for dialogue in dialogues[start : start + CHUNK]]
        examples += chat.training_examples(tokenizer, messages)
    return examples


def cut_to_fit(
    tokenizer: PreTrainedTokenizerBase, longer: dict[int, list[dict]], max_length: int
) -> dict[int, Example]:
    """As many whole turns of each conversation, from its start, as fit `max_length` tokens.

    A turn is a user's message and its answer. A conversation of which nothing fits, or nothing with an answer to learn
    from, is left out.
    """
    cut = {}
    for i, messages in tqdm(longer.items(), desc="cutting dialogues that are too long"):
        for end in range(len(messages) - 2, 1, -2):
            if not any(message["role"] == "assistant" and message.get("train", True) for message in messages[:end]):
                break
            (example,) = chat.training_examples(tokenizer, [messages[:end]])
            if len(example[0]) <= max_length:
                cut[i] = example
                break
    return cut


def left_out_warning(lengths: list[int], left_out: int, max_length: int, several: int) -> str:
    """How many dialogues of these lengths are left out, and what would keep them.

    `several` of them have more turns than one, of which `train.too_long=cut` would keep the first.
    """
    enough = sorted(lengths)[-1 - int(MOST_LEFT_OUT * len(lengths))]
    first_turns = f"; `-S train.too_long=cut` keeps the first turns of {several:,} that have several" if several else ""
    return (
        f"{left_out:,} of {len(lengths):,} dialogues are left out, since they are longer than train.max_length="
        f"{max_length} tokens: `-S train.max_length={enough}` leaves out at most {MOST_LEFT_OUT:.0%}{first_turns}"
    )


def packed_by_source(
    fitting: dict[int, Example], dialogues: list[dict], max_length: int, pad: int
) -> tuple[Dataset, dict]:
    """The packed sequences of the dialogues that fit, by index, and how many tokens they have.

    Each source apart: a batch may be one sequence, and the few tokens of a question's answer would count for nothing
    beside those of dialogues; the letters of the options are then not learnt.
    """
    by_source: dict[str, list[int]] = {}
    for i in fitting:
        by_source.setdefault(dialogues[i]["source"], []).append(i)
    parts, label_tokens = [], 0
    for own in by_source.values():
        columns, members = pack([fitting[i] for i in own], max_length, pad)
        record_ids = [[dialogues[own[i]]["id"] for i in documents] for documents in members]
        parts.append(Dataset.from_dict(columns | {"record_ids": record_ids}))
        label_tokens += int((columns["labels"] != chat.IGNORED).sum())
    sequences = concatenate_datasets(parts)
    tokens = {name: sum(len(fitting[i][0]) for i in own) for name, own in by_source.items()}
    return sequences, {
        "sequences": len(sequences),
        "tokens": sum(tokens.values()),
        "label_tokens": label_tokens,
        "packing_efficiency": sum(tokens.values()) / (len(sequences) * max_length),
        "tokens_by_source": tokens,
    }


if __name__ == "__main__":
    run(
        main,
        sections=("train.max_length", "train.too_long"),
        paths=(paths.PREPARED, paths.BASE, paths.TOKENIZED, paths.METRICS / "tokenize.json"),
    )
