"""Corpus BLEU-4 of greedy answers."""

from sacrebleu.metrics import BLEU
from tqdm import tqdm


def measure(model, examples: list[dict], tokenizer, max_new_tokens: int, stop_ids: set[int]) -> tuple[dict, list[dict]]:
    """sacreBLEU (Post 2018, arXiv:1804.08771) with its signature, and every answer beside its reference.

    `stopped` is the share of answers that ended by themselves before `max_new_tokens`.
    """
    answers = []
    for example in tqdm(examples, desc="answers"):
        ids = list(model.generate(example["prompt_ids"], max_new_tokens, stop_ids))
        answers.append(
            {
                "id": example["id"],
                "kind": "dialogue",
                "question": example["messages"][-2]["content"],
                "reference": example["reference"],
                "answer": tokenizer.decode(ids, skip_special_tokens=True).strip(),
                "stopped": len(ids) < max_new_tokens,
            }
        )
    scorer = BLEU()
    score = scorer.corpus_score([a["answer"] for a in answers], [[a["reference"] for a in answers]])
    return {
        "bleu": score.score,
        "bleu_signature": str(scorer.get_signature()),
        "stopped": sum(a["stopped"] for a in answers) / len(answers),
    }, answers
