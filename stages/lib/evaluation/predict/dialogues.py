"""The test dialogues asked of a model: the likelihood of the reference answers, and greedy answers beside them."""

from transformers import PreTrainedTokenizerBase

from stages.lib.evaluation.engines.batches import ask
from stages.lib.evaluation.engines.language_model import LanguageModel
from stages.lib.evaluation.engines.reply import Reply


def predict_dialogues(
    model: LanguageModel,
    examples: list[dict],
    answered: int,
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    stop_ids: set[int],
) -> list[dict]:
    """The likelihood of each reference answer, EOS included, then the greedy answers to the first `answered` ones."""
    likelihoods, answers = [], []
    for asked, limit in ((examples[:answered], max_new_tokens), (examples[answered:], 0)):
        if not asked:
            continue
        prompts = [example["prompt_ids"] for example in asked]
        references = [[[*example["answer_ids"], tokenizer.eos_token_id]] for example in asked]
        replies = ask(model, prompts, references, limit, stop_ids, "dialogues, answered" if limit else "dialogues")
        likelihoods += [likelihood(*pair) for pair in zip(asked, replies, strict=True)]
        if limit:
            texts = tokenizer.batch_decode([reply.greedy for reply in replies], skip_special_tokens=True)
            answers += [
                answer(example, text, len(reply.greedy) < limit)
                for example, reply, text in zip(asked, replies, texts, strict=True)
            ]
    return likelihoods + answers


def likelihood(example: dict, reply: Reply) -> dict:
    """`nats`: the sum of the answer's negative log-likelihoods, over `tokens` and over the text's `bytes` in UTF-8."""
    (logprobs,) = reply.logprobs
    return {
        "id": example["id"],
        "kind": "likelihood",
        "nats": float(-logprobs.sum()),
        "tokens": len(logprobs),
        "bytes": len(example["reference"].strip().encode()),
    }


def answer(example: dict, text: str, stopped: bool) -> dict:
    """A greedy answer beside its reference; `stopped` says whether it ended with EOS."""
    return {
        "id": example["id"],
        "kind": "dialogue",
        "question": example["messages"][-2]["content"],
        "reference": example["reference"],
        "answer": text.strip(),
        "stopped": stopped,
    }
