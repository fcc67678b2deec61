"""verify: proof that the float16 GGUF is the model that was trained, and how far quantising moved the others."""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from gguf import GGUFReader
from transformers import PreTrainedTokenizerBase

from stages.lib.base.gguf_file import read_gguf
from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.core.files import sha256, write_json
from stages.lib.core.stage import run
from stages.lib.data.prepared import sorted_dialogues
from stages.lib.evaluation.engines.gguf_model import GgufModel
from stages.lib.evaluation.engines.transformers_model import TransformersModel
from stages.lib.evaluation.predict.examples import answer_examples, stop_ids_of
from stages.lib.evaluation.verification import divergence, parity
from stages.lib.evaluation.verification.check import Check
from stages.lib.export import llamacpp
from stages.lib.export.gguf_keys import lineage_of
from stages.lib.model.chat import puts_bos
from stages.lib.model.loading import load_tokenizer
from stages.lib.settings.verify import Verify

CONVERSATIONS = 20  # whose rendering, or whose logits before merging, are compared


class Files(NamedTuple):
    """What the stage reads, then the folder that it writes to."""

    prepared: Path
    base: Path
    adapter: Path
    merged: Path
    ggufs: Path
    metrics: Path

    def gguf(self, name: str) -> Path:
        """One of the GGUFs, as `paths.gguf` names it."""
        return self.ggufs / paths.gguf(name).name


class Texts(NamedTuple):
    """The test dialogues, as each check needs them."""

    dialogues: list[dict]
    examples: list[dict]  # those that fit the context, as many as settings say
    sequences: list[list[int]]  # token ids of the examples, EOS included


def main(verify: Verify, files: Files, name: str) -> None:
    """Measure one GGUF and write metrics/models/NAME/verification.json; raises UserError where a check does not hold.

    At most two models are in memory at a time.
    """
    gguf = files.gguf(name)
    reader = read_gguf(gguf)
    tokenizer = load_tokenizer(files.base)
    texts = read_texts(verify, files, tokenizer)
    checks: list[Check] = []
    if name == paths.F16:
        measured, checks = prove(verify, files, reader, tokenizer, texts)
    else:
        original = GgufModel(files.gguf(paths.F16), verify.context)
        measured = divergence.measure(original, GgufModel(gguf, verify.context), texts.sequences)
    about = {"name": name, "bytes": gguf.stat().st_size, "sha256": sha256(gguf)}
    result = about | measured | parity.tensor_types(reader, name) | {"lineage": lineage_of(reader)}
    write_json(paths.verification(files.metrics, name), result | {"checks": [check.as_json() for check in checks]})
    if failed := [str(check) for check in checks if not check.holds]:
        raise UserError(
            f"{gguf} is not the model that was trained; {'; '.join(failed)}; "
            "build both anew with `dvc repro --force merge convert`"
        )


def read_texts(verify: Verify, files: Files, tokenizer: PreTrainedTokenizerBase) -> Texts:
    """The test dialogues as text and as token ids."""
    dialogues = sorted_dialogues(files.prepared / "test.jsonl")
    examples = answer_examples(tokenizer, dialogues, verify.context)[: verify.dialogues]
    sequences = [[*one["prompt_ids"], *one["answer_ids"], tokenizer.eos_token_id] for one in examples]
    return Texts(dialogues, examples, sequences)


def prove(
    verify: Verify, files: Files, reader: GGUFReader, tokenizer: PreTrainedTokenizerBase, texts: Texts
) -> tuple[dict[str, float], list[Check]]:
    """What the float16 GGUF measures against the merged model, and every check of the way from adapter to GGUF."""
    gguf = files.gguf(paths.F16)
    merged = TransformersModel(files.merged)
    tuned = TransformersModel(files.base, files.adapter)
    merging = divergence.merged_logits(tuned, merged, texts.sequences[:CONVERSATIONS])
    del tuned
    model = GgufModel(gguf, verify.context)
    measured = divergence.measure(merged, model, texts.sequences)
    prompts = [one["prompt_ids"] for one in texts.examples[: verify.prompts]]
    ending = parity.answers_end(merged, model, prompts, verify.max_new_tokens, stop_ids_of(files.base))
    del merged  # llama-server is the second model below
    conversations = [one["messages"][:-1] for one in texts.examples[:CONVERSATIONS]]
    text = "\n\n".join(message["content"] for row in texts.dialogues for message in row["messages"])
    return measured, [
        parity.token_ids(tokenizer, model),
        parity.prompts(tokenizer, gguf, conversations, verify.context),
        parity.stop_tokens(files.merged, tokenizer, reader),
        ending,
        parity.perplexity(model, gguf, text, tokenizer.bos_token_id if puts_bos(tokenizer) else None),
        divergence.top1_agreement(measured),
        divergence.mean_divergence(measured, "from the merged model"),
        merging,
        *adapter_checks(files, model, texts, verify.context),
    ]


def adapter_checks(files: Files, model: GgufModel, texts: Texts, context: int) -> list[Check]:
    """That the adapter's GGUF over the base's is the float16 GGUF; nothing where the adapter's is empty."""
    adapter = files.gguf(paths.LORA)
    if not adapter.stat().st_size:
        return []
    with tempfile.TemporaryDirectory(dir=files.ggufs) as temporary:  # where there is room for a model
        base = Path(temporary) / "base.gguf"
        llamacpp.convert(files.base, base, {})
        laid_over = GgufModel(base, context, adapter=adapter)
        measured = divergence.measure(model, laid_over, texts.sequences[:CONVERSATIONS])
        return [divergence.mean_divergence(measured, "of the adapter's GGUF over the base's")]


if __name__ == "__main__":
    run(
        main,
        sections=("export.verify",),
        paths=(paths.PREPARED, paths.BASE, paths.ADAPTER, paths.MERGED, paths.GGUF, paths.METRICS),
        items=sys.argv[1:],
    )
