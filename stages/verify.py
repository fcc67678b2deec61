"""verify: proof that the float16 GGUF is the model that was trained, and how far quantising moved the others."""

import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from gguf import GGUFReader

from stages.lib.base.gguf_file import read_gguf
from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.core.files import sha256, write_json
from stages.lib.core.stage import run
from stages.lib.data.prepared import sorted_dialogues
from stages.lib.evaluation.engines.batches import greedy
from stages.lib.evaluation.engines.gguf_model import GgufModel
from stages.lib.evaluation.engines.transformers_model import TransformersModel
from stages.lib.evaluation.predict.examples import answer_examples, stop_ids_of
from stages.lib.evaluation.verification import divergence, parity
from stages.lib.evaluation.verification.check import Check
from stages.lib.evaluation.verification.recorded import Recorded
from stages.lib.export import llamacpp
from stages.lib.export.gguf_keys import lineage_of
from stages.lib.model.allocator import use_expandable_segments
from stages.lib.model.chat import puts_bos
from stages.lib.model.device import device
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

    def plain(self) -> str:
        """What is said in them, without markers."""
        return "\n\n".join(message["content"] for row in self.dialogues for message in row["messages"])


def main(verify: Verify, files: Files, name: str) -> None:
    """Measure one GGUF and write metrics/models/NAME/verification.json; raises UserError where a check does not hold.

    One model is in memory at a time, on a GPU where there is one; what the others said of the texts is on disk.
    """
    use_expandable_segments()
    llamacpp.sum_in_float32()
    gguf = files.gguf(name)
    reader = read_gguf(gguf)
    texts = read_texts(verify, files)
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(dir=files.ggufs) as temporary:  # where there is room for a model
        if name == paths.F16:
            measured, checks = prove(verify, files, reader, texts, Path(temporary))
        else:
            measured = compare(verify, files, name, texts, Path(temporary))
    about = {"name": name, "bytes": gguf.stat().st_size, "sha256": sha256(gguf), "measured_with": llamacpp.version()}
    result = about | measured | parity.tensor_types(reader, name) | {"lineage": lineage_of(reader)}
    write_json(paths.verification(files.metrics, name), result | {"checks": [check.as_json() for check in checks]})
    if failed := [str(check) for check in checks if not check.holds]:
        raise UserError(
            f"{gguf} is not the model that was trained; {'; '.join(failed)}; "
            "build both anew with `dvc repro --force merge convert`"
        )


def read_texts(verify: Verify, files: Files) -> Texts:
    """The test dialogues as text and as token ids."""
    tokenizer = load_tokenizer(files.base)
    dialogues = sorted_dialogues(files.prepared / "test.jsonl")
    examples = answer_examples(tokenizer, dialogues, verify.context)[: verify.dialogues]
    sequences = [[*one["prompt_ids"], *one["answer_ids"], tokenizer.eos_token_id] for one in examples]
    return Texts(dialogues, examples, sequences)


def compare(verify: Verify, files: Files, name: str, texts: Texts, folder: Path) -> dict[str, float]:
    """What a quantised GGUF measures against the float16 one."""
    with closing(GgufModel(files.gguf(paths.F16), verify.context)) as model:
        original = Recorded(model, texts.sequences, folder / paths.F16)
    with closing(GgufModel(files.gguf(name), verify.context)) as model:
        return divergence.measure(original, model, texts.sequences)


def prove(
    verify: Verify, files: Files, reader: GGUFReader, texts: Texts, folder: Path
) -> tuple[dict[str, float], list[Check]]:
    """What the float16 GGUF measures against the merged model, and every check of the way from adapter to GGUF."""
    gguf = files.gguf(paths.F16)
    tokenizer = load_tokenizer(files.base)
    bos = tokenizer.bos_token_id if puts_bos(tokenizer) else None
    some = texts.sequences[:CONVERSATIONS]
    prompts = [one["prompt_ids"] for one in texts.examples[: verify.prompts]]
    limit, stop_ids = verify.max_new_tokens, stop_ids_of(files.base)
    with closing(TransformersModel(files.merged, device=device())) as model:
        merged = Recorded(model, texts.sequences, folder / "merged")
        wanted = greedy(model, prompts, limit, stop_ids, "answers of the merged model")
    with closing(TransformersModel(files.base, files.adapter, device())) as model:
        merging = divergence.merged_logits(model, merged, some)
    with closing(GgufModel(gguf, verify.context)) as model:
        f16 = Recorded(model, texts.sequences, folder / paths.F16)
        answers = greedy(model, prompts, limit, stop_ids, "answers of the GGUF")
        token_ids = parity.token_ids(tokenizer, model)
        perplexity = parity.perplexity_of(model, texts.plain(), bos)
    measured = divergence.measure(merged, f16, texts.sequences)
    merged.close()  # before the base becomes a GGUF: each takes gigabytes
    conversations = [one["messages"][:-1] for one in texts.examples[:CONVERSATIONS]]
    return measured, [
        token_ids,
        parity.prompts(tokenizer, gguf, conversations, verify.context),
        parity.stop_tokens(files.merged, tokenizer, reader),
        parity.answers_end(wanted, answers, limit),
        parity.same_perplexity(perplexity, gguf, texts.plain()),
        divergence.top1_agreement(measured),
        divergence.mean_divergence(measured, "from the merged model"),
        merging,
        *adapter_checks(files, f16, some, verify.context, folder),
    ]


def adapter_checks(files: Files, f16: Recorded, sequences: list[list[int]], context: int, folder: Path) -> list[Check]:
    """That the adapter's GGUF over the base's is the float16 GGUF; nothing where the adapter's is empty."""
    adapter = files.gguf(paths.LORA)
    if not adapter.stat().st_size:
        return []
    base = folder / "base.gguf"
    llamacpp.convert(files.base, base, {})
    with closing(GgufModel(base, context, adapter=adapter)) as laid_over:
        measured = divergence.measure(f16, laid_over, sequences)
    return [divergence.mean_divergence(measured, "of the adapter's GGUF over the base's")]


if __name__ == "__main__":
    run(
        main,
        sections=("export.verify",),
        paths=(paths.PREPARED, paths.BASE, paths.ADAPTER, paths.MERGED, paths.GGUF, paths.METRICS),
        items=sys.argv[1:],
    )
