"""train: an adapter on the base, learnt from the answers of the packed training rows."""

import logging
from dataclasses import asdict
from pathlib import Path

from stages.lib import checkpoints, launch, memory, paths, tracking
from stages.lib.files import read_json, write_json, write_text
from stages.lib.finetune import finetune
from stages.lib.machine import free_memory, resolved
from stages.lib.models import load_tokenizer
from stages.lib.schema import Template, Track
from stages.lib.stage import run
from stages.lib.train_schema import Train


def main(
    train: Train,
    template: Template,
    track: Track,
    seed: int,
    tokenized: Path,
    base: Path,
    adapter: Path,
    plots: Path,
    metrics_file: Path,
) -> None:
    """Tune, resuming from the last checkpoint of the same config, data, base and code; save adapter and curves."""
    train = resolved(train)
    memory.require(read_json(base / "config.json"), train, free_memory())
    trained_ids = load_tokenizer(base).convert_tokens_to_ids(template.trained_tokens)
    arguments = (train, trained_ids, seed, tokenized, base)
    key = checkpoints.key_of(vars(train), template.name, seed, [tokenized, base, Path(__file__).parent / "lib"])
    if launch.joining():  # another machine leads, holds the checkpoints and writes what comes out
        launch.start(train.launch, finetune, *arguments, checkpoints.folder_of(key), adapter)
        return
    with checkpoints.locked(key) as folder:
        history = launch.start(train.launch, finetune, *arguments, folder, adapter)
        for name, table in tracking.tables(history).items():
            write_text(plots / f"{name}.csv", table)
        summary = tracking.summary(history)
        write_json(metrics_file, summary)
        settings = {"train": asdict(train), "template": asdict(template), "seed": seed}
        tracking.write_run(track.mode, track.project, key, history, adapter, settings, paths.LOCK, [tokenized, base])
        checkpoints.discard(folder)
    logging.info("%s", summary)


if __name__ == "__main__":
    run(
        main,
        sections=("train", "template", "track", "seed"),
        paths=(paths.TOKENIZED, paths.BASE, paths.ADAPTER, paths.PLOTS / "train", paths.METRICS / "train.json"),
    )
