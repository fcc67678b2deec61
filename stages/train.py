"""train: a LoRA adapter on the base, learnt from the answers of the packed training rows."""

import logging
from pathlib import Path

from stages.lib import checkpoints, paths, tracking
from stages.lib.files import replacing, write_json, write_text
from stages.lib.finetune import add_adapter, finetune, save_adapter
from stages.lib.models import load_model, load_tokenizer
from stages.lib.schema import Template, Track, Train
from stages.lib.stage import run


def main(
    train: Train,
    template: Template,
    track: Track,
    seed: int,
    tokenized: Path,
    base: Path,
    adapter: Path,
    curve: Path,
    metrics_file: Path,
) -> None:
    """Tune, resuming from the last checkpoint of the same config, data, base and code; save adapter and curves."""
    tokenizer, model = load_tokenizer(base), load_model(base)
    trained_tokens = tokenizer.convert_tokens_to_ids(template.trained_tokens)
    peft_model = add_adapter(model, train, trained_tokens, seed)
    key = checkpoints.key_of(vars(train), template.name, seed, [tokenized, base, Path(__file__).parent / "lib"])
    with checkpoints.locked(key) as folder:
        history = finetune(peft_model, train, tokenized, folder, seed)
        with replacing(adapter) as target:
            save_adapter(peft_model, target)
        write_text(curve, tracking.loss_table(history))
        summary = tracking.summary(history)
        write_json(metrics_file, summary)
        tracking.write_run(track.mode, track.project, key, history)
        checkpoints.discard(folder)
    logging.info("%s", summary)


if __name__ == "__main__":
    run(
        main,
        sections=("train", "template", "track", "seed"),
        paths=(
            paths.TOKENIZED,
            paths.BASE,
            paths.ADAPTER,
            paths.PLOTS / "train" / "loss.csv",
            paths.METRICS / "train.json",
        ),
    )
