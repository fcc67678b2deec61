"""What the stages after a training will need, looked at before its hours begin: disk, memory, a build of llama.cpp."""

import logging
import shutil
from pathlib import Path

from stages.lib.core.errors import UserError
from stages.lib.core.resources import llama_cpp_build
from stages.lib.model import widening
from stages.lib.model.device import free_memory
from stages.lib.model.inference_memory import beside_weights
from stages.lib.settings.train import Train
from stages.lib.training import shapes
from stages.lib.training.memory_estimate import STATES
from stages.lib.training.memory_sizes import FLOAT32

CHECKPOINTS = 3  # that a training keeps at a time
FINEST = 1.07  # bytes a weight of q8_0, the largest quant type


def require(config: dict, train: Train, folder: Path, checkpoints: Path, device: str) -> None:
    """Log what is needed and free; raise UserError, one sentence with all that is short.

    `config` is the base's config.json, `folder` on the disk that everything goes to; `checkpoints`, a folder, may hold
    some of an earlier call. `verify` holds one model in 16 bits, and `predict` without a GPU; on one it asks for
    evaluate.predict.batch_tokens itself. A machine whose GPU is too small for them may do that in its own memory.
    Sizes are about right: 10⁹ bytes.
    """
    llama_cpp_build()
    parts = disk(config, train)
    held = sum(path.stat().st_size for path in checkpoints.rglob("*") if path.is_file())
    parts["checkpoints"] = max(0, parts["checkpoints"] - held)
    listed = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts.items())
    model = 2 * shapes.parameters(config) + beside_weights(config, widening.TOKENS, widening.SCORED, FLOAT32)
    roomy = next((one for one in (device, "cpu") if free_memory(one) >= model), device)
    where = "the GPU's memory" if roomy == "cuda" else "memory"
    needs = [
        (f"of disk ({listed})", sum(parts.values()), shutil.disk_usage(folder).free),
        (f"of {where}", model, free_memory(roomy)),
    ]
    sentences = [f"{size / 1e9:.1f} GB {what}, {free / 1e9:.1f} GB are free" for what, size, free in needs]
    logging.info("the stages after this one need about %s", "; ".join(sentences))
    if roomy != device:
        logging.warning("the GPU is too small for them: run them with CUDA_VISIBLE_DEVICES= in front; the CPU is slow")
    if short := [one for one, (_, size, free) in zip(sentences, needs, strict=True) if size > free]:
        raise UserError(
            f"training could end, but not the stages after it, which need about {'; '.join(short)}; free that much, "
            "or take another machine or a smaller base"
        )


def disk(config: dict, train: Train) -> dict[str, float]:
    """Bytes that training and the stages after it write, by what they are, with one quant type."""
    weights = shapes.parameters(config)
    trained = shapes.trainable_parameters(config, train.method, train.lora)
    states = STATES[train.optim.removeprefix("paged_")]
    return {
        "checkpoints": CHECKPOINTS * (FLOAT32 + states) * trained,
        "adapter": FLOAT32 * trained,
        "merged model": 2 * weights,
        "float16 GGUF": 2 * weights,
        "quantised GGUF": FINEST * weights,
        "verify's float16 GGUF of the base": 2 * weights,
    }
