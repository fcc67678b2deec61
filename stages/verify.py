"""verify: proof that the float16 GGUF is the model that was trained, and how far quantising moved the others."""

import sys
from pathlib import Path

from stages.lib import dialogues, divergence, parity, paths
from stages.lib.errors import UserError
from stages.lib.files import write_json
from stages.lib.gguf_model import GgufModel
from stages.lib.models import load_tokenizer
from stages.lib.schema import Verify
from stages.lib.scoring import answer_examples, stop_ids_of
from stages.lib.stage import run
from stages.lib.transformers_model import TransformersModel

SAME_TOP, KL_MEAN = 0.995, 1e-4  # of f16 against the merged model: share of positions, nats
MERGED_LOGITS = 0.1  # how far a logit of the merged model may be from that of base and adapter
LOOKED_AT = 20  # conversations whose rendering, or whose logits before merging, are compared


def main(
    verify: Verify, prepared: Path, base: Path, adapter: Path, merged: Path, folder: Path, metrics: Path, name: str
) -> None:
    """Measure one GGUF and write metrics/verify/NAME.json; fail where a check does not hold.

    At most two models are in memory at a time.
    """
    tokenizer = load_tokenizer(base)
    rows = dialogues.by_id(prepared / "test.jsonl")
    examples = answer_examples(tokenizer, rows, verify.context)[: verify.dialogues]
    texts = [[*one["prompt_ids"], *one["answer_ids"], tokenizer.eos_token_id] for one in examples]
    gguf, original = folder / paths.gguf(name).name, folder / paths.gguf("f16").name
    reference = TransformersModel(merged) if name == "f16" else GgufModel(original, verify.context)
    moved = moved_by_merging(base, adapter, reference, texts[:LOOKED_AT]) if name == "f16" else None
    model = GgufModel(gguf, verify.context)
    result = {"name": name} | divergence.measure(reference, model, texts) | parity.tensor_types(gguf)
    del reference  # llama-server is the second one below
    checks = {}
    if name == "f16":
        same, kl = result["same_top"], result["kl_mean"]
        asked = [one["messages"][:-1] for one in examples[:LOOKED_AT]]
        first = [one["prompt_ids"] for one in examples[: verify.prompts]]
        text = "\n\n".join(message["content"] for row in rows for message in row["messages"])
        checks = {
            "the same token ids": parity.token_ids(tokenizer, model),
            "the same prompts in llama-server": parity.prompts(tokenizer, gguf, asked, verify.context),
            "the same stop tokens": parity.stop_tokens(merged, tokenizer, gguf),
            "answers end by themselves": parity.answers_end(model, first, verify.max_new_tokens, stop_ids_of(base)),
            "perplexity as llama-perplexity": parity.perplexity(model, gguf, text, tokenizer.bos_token_id),
            f"the same top token at {SAME_TOP:.1%} of positions": (same >= SAME_TOP, f"{same:.4%}"),
            f"divergence under {KL_MEAN} nats": (kl < KL_MEAN, f"{kl:.2e}"),
            f"merged logits within {MERGED_LOGITS} of base and adapter": (moved <= MERGED_LOGITS, f"{moved:.4f}"),
        }
    listed = [{"check": check, "holds": bool(holds), "seen": seen} for check, (holds, seen) in checks.items()]
    write_json(metrics / "verify" / f"{name}.json", result | {"checks": listed})
    if failed := [f"{check}: {seen}" for check, (holds, seen) in checks.items() if not holds]:
        raise UserError(f"{gguf} is not the model that was trained; {'; '.join(failed)}")


def moved_by_merging(base: Path, adapter: Path, merged: TransformersModel, texts: list[list[int]]) -> float:
    """The largest difference between a logit of the merged model and that of base and adapter, which is freed again."""
    return divergence.measure(TransformersModel(base, adapter), merged, texts)["largest_logit_difference"]


if __name__ == "__main__":
    run(
        main,
        sections=("export.verify",),
        paths=(paths.PREPARED, paths.BASE, paths.ADAPTER, paths.MERGED, paths.GGUF, paths.METRICS),
        items=sys.argv[1:],
    )
