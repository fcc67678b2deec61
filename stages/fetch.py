"""fetch: the pinned sources as raw files."""

import logging
from pathlib import Path

from stages.lib import paths
from stages.lib.data_schema import Source
from stages.lib.files import replacing, write_json
from stages.lib.sources import brought, described, generate, keep
from stages.lib.stage import run


def main(sources: list[Source], seed: int, tables: Path, raw: Path) -> None:
    """Bring every source here, then fill the folder with verified copies, and say in sources.json what they are."""
    found = [(source, brought(source)) for source in sources if source.kind != "sample"]
    with replacing(raw) as folder:
        folder.mkdir()
        for source, path in found:
            keep(source, path, folder)
        generate([source for source in sources if source.kind == "sample"], tables, seed, folder)
        manifest = [described(source, folder) for source in sources]
        write_json(folder / "sources.json", manifest)
    for source in manifest:
        logging.info("%s: %s, %d bytes, sha256 %s", source["name"], source["file"], source["bytes"], source["sha256"])


if __name__ == "__main__":
    run(main, sections=("data.sources", "seed"), paths=(paths.SAMPLE, paths.RAW))
