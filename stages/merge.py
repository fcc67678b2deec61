"""merge: the base as it was trained, by an adapter or whole, as float16 safetensors shards."""

from pathlib import Path

from stages.lib.core import paths
from stages.lib.core.files import replacing
from stages.lib.core.stage import run
from stages.lib.export.merging import merge


def main(base: Path, adapter: Path, merged: Path) -> None:
    """Put what was trained into the base, some rows at a time."""
    with replacing(merged) as folder:
        merge(base, adapter, folder)


if __name__ == "__main__":
    run(main, paths=(paths.BASE, paths.ADAPTER, paths.MERGED))
