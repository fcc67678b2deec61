"""convert: the merged model as a float16 GGUF, and the adapter alone as another."""

from pathlib import Path
from typing import NamedTuple

from stages.lib.core import paths
from stages.lib.core.stage import run
from stages.lib.export import adapter_gguf, llamacpp, provenance
from stages.lib.export.provenance import Ancestors, Settings


class Files(NamedTuple):
    """What the stage reads, then the two GGUFs that it writes."""

    raw: Path
    prepared: Path
    base: Path
    adapter: Path
    merged: Path
    gguf: Path
    adapter_gguf: Path


def main(settings: Settings, files: Files) -> None:
    """Convert both with llama.cpp's own converters, and write into them where they come from."""
    ancestors = Ancestors(files.raw, files.prepared, files.adapter, files.merged)
    metadata = provenance.metadata(settings, ancestors, llamacpp.version())
    llamacpp.convert(files.merged, files.gguf, metadata)
    adapter_gguf.convert_adapter(files.base, files.adapter, settings.train.method, files.adapter_gguf, metadata)


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
            paths.gguf(paths.F16),
            paths.gguf(paths.LORA),
        ),
    )
