"""fetch: the pinned sources as raw files."""

import logging
from pathlib import Path

from stages.lib.core import paths
from stages.lib.core.files import replacing, write_json
from stages.lib.core.stage import run
from stages.lib.data.sources.fetching import copy_source, describe_source, fetch_source, generate_sources
from stages.lib.settings.data import Source


def main(sources: list[Source], seed: int, tables: Path, raw: Path) -> None:
    """Fetch every source, then fill the folder with verified copies, and say in sources.json what they are."""
    fetched = [(source, fetch_source(source)) for source in sources if source.kind != "sample"]
    with replacing(raw) as folder:
        folder.mkdir()
        for source, path in fetched:
            copy_source(source, path, folder)
        generate_sources([source for source in sources if source.kind == "sample"], tables, seed, folder)
        manifest = [describe_source(source, folder) for source in sources]
        write_json(folder / "sources.json", manifest)
    for about in manifest:
        logging.info("%s: %s, %d bytes, sha256 %s", about["name"], about["file"], about["bytes"], about["sha256"])


if __name__ == "__main__":
    run(main, sections=("data.sources", "seed"), paths=(paths.SAMPLE, paths.RAW))
