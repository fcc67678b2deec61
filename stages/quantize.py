"""quantize: the float16 GGUF in one of llama.cpp's quant types."""

import sys
from pathlib import Path

from stages.lib import llamacpp, paths
from stages.lib.stage import run


def main(source: Path, folder: Path, kind: str) -> None:
    """Quantise with llama.cpp's own quantizer."""
    llamacpp.quantize(source, folder / paths.gguf(kind).name, kind)


if __name__ == "__main__":
    run(main, paths=(paths.gguf("f16"), paths.GGUF), items=sys.argv[1:])
