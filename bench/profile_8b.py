"""Where a GPU's time goes in a micro-batch of bench.train_8b: `python -m bench.profile_8b SETTINGS OUT`."""

import time
from collections import Counter
from pathlib import Path
from statistics import median

import torch
from datasets import load_from_disk
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench.base_8b import sizes
from bench.memory import as_the_trainer_has_it
from bench.processes import Answers, asked
from bench.steps import cap, chosen, peaks
from bench.training_8b import MICRO_BATCH, train_section
from stages.lib.training.trainer import collate

LENGTH = 2048
# The first kind of which a word is in the kernel's name; on a CPU in the operator's.
KINDS = {
    "attention": ("flash", "fmha", "attention"),
    "matrix products": ("gemm", "nvjet", "cutlass", "xmma", "cublas", "aten::mm", "aten::addmm", "aten::bmm"),
    "dropout": ("dropout", "bernoulli"),
    "copies and casts": ("memcpy", "memset", "copy"),
    "reductions": ("reduce", "softmax", "sum", "mean"),
}
SHOWN = 12  # kernels


def measure(settings: dict, answers: Answers) -> None:
    """LoRA on 16 bits: milliseconds of a micro-batch as it runs, then by kind of kernel under the profiler."""
    this, folder = sizes(), Path(settings["folder"])
    cap(this.cap_gib)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train = chosen(train_section("lora", this.tokens[LENGTH]))
    rows = load_from_disk(folder / str(LENGTH) / "packed-ours/train").with_format("numpy")
    line = collate([rows[i] for i in range(MICRO_BATCH)])
    del line["record_ids"], line["tokens"]
    line = {name: value.to(device) if torch.is_tensor(value) else value for name, value in line.items()}
    model = as_the_trainer_has_it(folder / "base", train).to(device)

    def micro_batch() -> float:
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=train.precision == "bf16"):
            loss = model(**line, num_items_in_batch=1).loss
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start)

    wall = median([micro_batch() for _ in range(4)][1:])
    memory = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in peaks().items())
    answers.add(f"a micro-batch: {wall:.1f} ms; {memory}, without optimiser", micro_batch_ms=wall, **peaks())
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as seen:
        micro_batch()
    kernels = spent(seen, device)
    kinds = by_kind(kernels)
    listed = ", ".join(f"{name} {ms:.1f}" for name, ms in kinds.items())
    total = f"{'GPU' if device == 'cuda' else 'CPU'} milliseconds of one, {sum(kinds.values()):.1f}"
    answers.add(f"{total}: {listed}", kinds_ms=kinds, kernels_ms=dict(kernels.most_common(SHOWN)))


def spent(seen: profile, device: str) -> Counter:
    """Milliseconds by kernel on a GPU, by operator without what it calls on a CPU; the longest first."""
    found = Counter()
    for event in seen.key_averages():
        if device == "cpu":
            found[event.key] += event.self_cpu_time_total / 1e3
        elif event.device_type == DeviceType.CUDA:
            found[event.key] += event.self_device_time_total / 1e3
    return Counter(dict(found.most_common()))


def by_kind(kernels: Counter) -> dict[str, float]:
    """The same by kind, the longest first; what is of none is elementwise."""
    kinds = Counter()
    for name, ms in kernels.items():
        lower = name.lower()
        kinds[next((kind for kind, words in KINDS.items() if any(w in lower for w in words)), "elementwise")] += ms
    return dict(kinds.most_common())


if __name__ == "__main__":
    measure(*asked())
