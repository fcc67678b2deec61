"""What every evaluated model is asked: the same prompts and answers, as the same token ids."""

import logging
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json
from stages.lib.data.medqa import answer_text, letters_of
from stages.lib.model import chat


def stop_ids_of(folder: Path) -> set[int]:
    """The ids that end an answer, as the model's generation config lists them."""
    listed = read_json(folder / "generation_config.json")["eos_token_id"]
    return set(listed if isinstance(listed, list) else [listed])


def answer_examples(tokenizer: PreTrainedTokenizerBase, dialogues: list[dict], max_length: int) -> list[dict]:
    """Prompt ids and reference answer of each dialogue; those over `max_length` tokens are counted and left out.

    Raises UserError where none is left.
    """
    examples = []
    for row in dialogues:
        *context, answer = row["messages"]
        prompt = chat.prompt_ids(tokenizer, context)
        answer_ids = chat.content_ids(tokenizer, answer["content"])
        examples.append(row | {"prompt_ids": prompt, "answer_ids": answer_ids, "reference": answer["content"]})
    fitting = [e for e in examples if len(e["prompt_ids"]) + len(e["answer_ids"]) < max_length]
    logging.info(
        "%d test dialogues, %d of them too long for %d tokens", len(examples), len(examples) - len(fitting), max_length
    )
    if not fitting:
        raise UserError(
            f"data/prepared/test.jsonl: no dialogue fits {max_length} tokens; "
            "raise evaluate.predict.context, or export.verify.context where verify says so"
        )
    return fitting


def question_examples(tokenizer: PreTrainedTokenizerBase, questions: list[dict], context: int) -> list[dict]:
    """Prompt ids of each question and the ids of the answer that each option is as they are trained, EOS included.

    Raises UserError where there is no question, or one exceeds the context.
    """
    if not questions:
        raise UserError("data/prepared/medqa_test.jsonl: no question there; give a test set with questions")
    examples = []
    for row in questions:
        prompt = chat.prompt_ids(tokenizer, row["messages"])
        texts = [answer_text(letter, row["options"]) for letter in letters_of(row["options"])]
        answers = [[*chat.content_ids(tokenizer, text), tokenizer.eos_token_id] for text in texts]
        length = len(prompt) + sum(map(len, answers))  # in llama.cpp they lie beside each other
        if length > context:
            raise UserError(
                f"data/prepared/medqa_test.jsonl: question {row['id']} has {length} tokens, "
                f"more than evaluate.predict.context={context}; raise it"
            )
        examples.append(row | {"prompt_ids": prompt, "answers_ids": answers})
    return examples
