"""convert: the merged model as a float16 GGUF."""

from pathlib import Path

from stages.lib import llamacpp, paths
from stages.lib.stage import run


def main(merged: Path, gguf: Path) -> None:
    """Convert with llama.cpp's own converter."""
    llamacpp.convert(merged, gguf)


if __name__ == "__main__":
    run(main, paths=(paths.MERGED, paths.gguf("f16")))
