"""convert: the merged model as a float16 GGUF, and the adapter alone as another."""

from pathlib import Path

from stages.lib import adapter_gguf, lineage, llamacpp, paths
from stages.lib.data_schema import Data
from stages.lib.schema import Model, Template
from stages.lib.stage import run
from stages.lib.train_schema import Train


def main(
    data: Data,
    model: Model,
    template: Template,
    train: Train,
    seed: int,
    raw: Path,
    prepared: Path,
    base: Path,
    adapter: Path,
    merged: Path,
    gguf: Path,
    adapter_target: Path,
) -> None:
    """Convert both with llama.cpp's own converters, and write into them where they come from."""
    made_from = [raw, prepared, adapter, merged]
    metadata = lineage.metadata(data, model, template, train, seed, llamacpp.version(), made_from)
    llamacpp.convert(merged, gguf, metadata)
    adapter_gguf.convert_adapter(base, adapter, train.method, adapter_target, metadata)


if __name__ == "__main__":
    run(
        main,
        sections=("data", "model", "template", "train", "seed"),
        paths=(
            paths.RAW,
            paths.PREPARED,
            paths.BASE,
            paths.ADAPTER,
            paths.MERGED,
            paths.gguf("f16"),
            paths.gguf("lora-f16"),
        ),
    )
