"""quantize: the float16 GGUF in one of llama.cpp's quant types."""

import sys
from pathlib import Path

from stages.lib.core import paths
from stages.lib.core.stage import run
from stages.lib.export import llamacpp


def main(tensor_types: dict[str, str], source: Path, imatrix: Path, folder: Path, kind: str) -> None:
    """Quantise with llama.cpp's own quantizer, weighing errors by the importance matrix where there is one."""
    weighed = imatrix.stat().st_size > 0 and kind not in llamacpp.UNWEIGHED
    llamacpp.quantize(source, folder / paths.gguf(kind).name, kind, tensor_types, imatrix if weighed else None)


if __name__ == "__main__":
    run(
        main,
        sections=("export.tensor_types",),
        paths=(paths.gguf(paths.F16), paths.IMATRIX, paths.GGUF),
        items=sys.argv[1:],
    )
