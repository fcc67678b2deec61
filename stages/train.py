"""train: an adapter on the base, learnt from the answers of the packed training sequences."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from stages.lib.core import paths
from stages.lib.core.files import read_json, write_json, write_text
from stages.lib.core.stage import run
from stages.lib.model.allocator import use_expandable_segments
from stages.lib.model.device import device, free_memory
from stages.lib.model.loading import trained_token_ids
from stages.lib.settings.template import Template
from stages.lib.settings.track import Track
from stages.lib.settings.train import Train
from stages.lib.training import checkpoints, history, launch, memory, preflight, wandb_run
from stages.lib.training.hardware import require_gpu, resolved
from stages.lib.training.trainer import Places, finetune


class Files(NamedTuple):
    """What the stage reads, and what it writes."""

    tokenized: Path
    base: Path
    adapter: Path
    plots: Path
    metrics: Path


def main(train: Train, template: Template, track: Track, seed: int, files: Files) -> dict[str, float]:
    """Tune, resuming from the last checkpoint of the same key; save adapter and curves; return tokens per second."""
    use_expandable_segments()
    train = resolved(train)
    require_gpu(train.launch)
    config = read_json(files.base / "config.json")
    where = device()
    memory.require(config, train, free_memory(where))
    trained_ids = trained_token_ids(files.base)
    inputs = [files.tokenized, files.base]
    key = checkpoints.key_of(train, seed, inputs)
    places = Places(files.tokenized, files.base, checkpoints.folder_of(key), files.adapter)
    if launch.joining():  # another machine leads, holds the checkpoints and writes the results
        launch.start(train.launch, finetune, train, trained_ids, seed, places)
        return {}
    preflight.require(config, train, paths.checkout(), places.checkpoints, where)
    with checkpoints.locked(key) as folder:
        steps = launch.start(train.launch, finetune, train, trained_ids, seed, places)
        for name, table in history.tables(steps).items():
            write_text(files.plots / f"{name}.csv", table)
        summary = history.summary(steps)
        write_json(files.metrics, summary)
        settings = {"train": asdict(train), "template": asdict(template), "seed": seed}
        wandb_run.write_run(track, key, steps, files.adapter, wandb_run.Origin(settings, paths.LOCK, inputs))
        checkpoints.discard(folder)
    logging.info("%s", summary)
    return {"tokens_per_second": history.tokens_per_second(steps)}


if __name__ == "__main__":
    run(
        main,
        sections=("train", "template", "track", "seed"),
        paths=(paths.TOKENIZED, paths.BASE, paths.ADAPTER, paths.PLOTS / "train", paths.METRICS / "train.json"),
    )
