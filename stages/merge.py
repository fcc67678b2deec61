"""merge: the base as it was trained, by an adapter or whole, as float16 safetensors shards."""

from pathlib import Path

from stages.lib import paths
from stages.lib.files import replacing
from stages.lib.merging import merge
from stages.lib.stage import run


def main(base: Path, adapter: Path, merged: Path) -> None:
    """Put what was trained into the base, one tensor at a time."""
    with replacing(merged) as folder:
        merge(base, adapter, folder)


if __name__ == "__main__":
    run(main, paths=(paths.BASE, paths.ADAPTER, paths.MERGED))
