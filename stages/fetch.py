"""fetch: the pinned sources as raw files."""

import logging
from pathlib import Path

from stages.lib import paths, sources
from stages.lib.files import sha256
from stages.lib.schema import Data
from stages.lib.stage import run


def main(data: Data, seed: int, tables: Path, raw: Path) -> None:
    """Check every source before the first write, then copy or generate its file."""
    for source in data.sources:
        if source.kind == "hub":
            sources.refuse_hub(source)
    found = {source.name: sources.located(source) for source in data.sources if source.kind == "file"}
    for name, path in found.items():
        sources.copy(path, raw / sources.FILES[name])
    sources.generate({s.name: s.count for s in data.sources if s.kind == "sample"}, tables, seed, raw)
    for path in sorted(raw.iterdir()):
        logging.info("%s: %d bytes, sha256 %s", path, path.stat().st_size, sha256(path))


if __name__ == "__main__":
    run(main, sections=("data", "seed"), paths=(paths.SAMPLE, paths.RAW))
