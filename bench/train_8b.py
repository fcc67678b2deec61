"""LoRA of Llama-3-8B's shapes on a GPU of 24 GiB, beside TRL: `python -m bench.train_8b [--budget SECONDS] [PART ...]`.

Random weights; micro-batches of 2 packed rows of 2,048 and of 512 tokens. 24 GiB are a hard cap on what a process may
allocate, whatever the card has. Parts run in the order of their worth, each in a process of its own; none is begun for
which too little of the budget is left, and one that fails stops no other. Without a GPU the same parts run cut down, to
see that they work: those figures say nothing about 8B. What is measured goes to bench/train_8b.json as it comes.

This process imports no torch: it takes nothing of the GPU, and of the machine's memory next to nothing.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from bench.processes import installed, run, trl, why
from stages.lib.core.files import read_json, write_json
from stages.lib.model.allocator import use_expandable_segments

RESULT = Path(__file__).with_suffix(".json")
BUDGET = 540  # seconds
GIB = 1 << 30
MEMORY_DISK = Path("/dev/shm")
ROOM = 40e9  # bytes that must be free there: the base's 16 GB, and as much again while a process loads it
CPU = "CPU"
NAME = "from bench.machine import device_name; print(device_name())"


class Part(NamedTuple):
    """A module of bench/ and what it is asked; `seconds` that it may take on an H100."""

    module: str
    seconds: int
    asked: Mapping[str, Any] = MappingProxyType({})
    needs_gpu: bool = False
    needs_base: bool = False


def training(variant: str, method: str, length: int) -> tuple[str, Part]:
    """A training and its name."""
    asked = {"variant": variant, "method": method, "length": length}
    return f"{variant}-{method}-{length}", Part("training_8b", 90, asked, "liger" in variant, needs_base=True)


PARTS = dict(
    (
        ("machine", Part("machine", 45)),
        ("correctness", Part("correctness", 45)),
        ("base", Part("base_8b", 60)),
        training("ours", "lora", 2048),
        training("ours", "lora-8bit", 2048),
        training("ours", "qlora", 2048),
        training("trl-liger", "lora", 2048),
        ("evaluation", Part("evaluation_8b", 80, needs_base=True)),
        training("ours-liger", "lora", 2048),
        ("profile", Part("profile_8b", 60, needs_base=True)),
        training("trl", "lora", 2048),
        training("trl-liger", "qlora", 2048),
        training("ours", "lora", 512),
        training("ours", "lora-8bit", 512),
        training("ours", "qlora", 512),
        training("trl-liger", "lora", 512),
    )
)


class Session:
    """One call of the script: its device, its budget, where the base lies, and the results so far, by part."""

    def __init__(self, device: str, began: float, budget: float, folder: Path, results: dict[str, dict]) -> None:
        self.device, self.began, self.budget = device, began, budget
        self.folder, self.results = folder, results
        self.pip = 0  # its status

    def say(self, text: str) -> None:
        """Print with the seconds since the start."""
        print(f"[{time.perf_counter() - self.began:4.0f} s] {text}", flush=True)

    def perform(self, name: str) -> None:
        """Run a part and keep its result, or say why it is left out."""
        part = PARTS[name]
        needed = trl(self.device != CPU) if part.asked.get("variant", "ours") != "ours" else ()
        reason = self.hindrance(part, needed)
        if reason:
            return self.say(f"{name}: left out, {reason}")
        self.say(name)
        asked = dict(part.asked) | {"folder": str(self.folder)}
        seen = run(part.module, asked, self.folder / "run", *needed, seconds=max(1, self.left()), aloud=True)
        self.results[name] = seen
        write_json(RESULT, {"device": self.device, "parts": self.results})
        if "failed" in seen:
            return self.say(f"{name}: failed: {seen['failed']}")
        ours = baseline(name)
        if name != ours and (difference := largest_difference(self.results, name, ours)) is not None:
            self.say(f"{name}: losses at most {difference:.4f} from those of {ours}")

    def hindrance(self, part: Part, packages: tuple[str, ...]) -> str:
        """Why a part cannot run now; empty where it can. Installs the packages that it needs."""
        left = self.left()
        if part.needs_gpu and self.device == CPU:
            return "no GPU"
        if part.seconds > left:
            return f"it may take {part.seconds} s and {max(0, left):.0f} are left"
        if part.needs_base and not (self.folder / "base").exists():
            return "there is no base"
        if packages and not self.pip:
            try:
                installed(*packages)
            except subprocess.CalledProcessError as error:
                self.pip = error.returncode
        if packages and self.pip:
            return f"pip could not install {' and '.join(packages)} (status {self.pip})"
        return ""

    def left(self) -> float:
        """Seconds of the budget."""
        return self.budget - (time.perf_counter() - self.began)


def main() -> None:
    """Run the parts that the command line names, or all; print a table of the trainings."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(prog="python -m bench.train_8b", description=__doc__.split("\n\n")[0])
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds in all (default: %(default)s)")
    parser.add_argument("parts", metavar="PART", nargs="*", type=part_name, help=", ".join(PARTS))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the part is stopped and the base removed
    for_all_parts()
    device = device_name()
    with tempfile.TemporaryDirectory(prefix="train_8b-", dir=place()) as folder:
        kept = earlier(device) if options.parts else {}
        session = Session(device, began, options.budget, Path(folder), kept)
        session.say(f"{device}, {options.budget:.0f} s")
        for name in with_base(options.parts or list(PARTS)):
            session.perform(name)
        session.say("done")
    if any(map(baseline, session.results)):
        print(table(session.results, device))


def for_all_parts() -> None:
    """Set what each part inherits: CUDA's allocator as `train` has it, one GPU of several, nothing asked of the hub."""
    use_expandable_segments()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    os.environ["HF_HUB_OFFLINE"] = "1"


def part_name(text: str) -> str:
    """A name of PARTS, for argparse."""
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"no part {text!r}; there are {', '.join(PARTS)}")
    return text


def device_name() -> str:
    """The GPU's name, or `CPU`, asked of a process of its own; ends with what that says where it fails."""
    done = subprocess.run([sys.executable, "-c", NAME], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip().split("\n")[-1])
    return done.stdout.strip().split("\n")[-1]


def place() -> str:
    """Where the base is kept: in memory where that has room, else among temporary files."""
    roomy = MEMORY_DISK.is_dir() and shutil.disk_usage(MEMORY_DISK).free > ROOM
    return str(MEMORY_DISK) if roomy else tempfile.gettempdir()


def earlier(device: str) -> dict[str, dict]:
    """The results that an earlier call wrote on a device of the same name."""
    written = read_json(RESULT) if RESULT.exists() else {}
    kept = written.get("parts", {}) if written.get("device") == device else {}
    return {name: seen for name, seen in kept.items() if name in PARTS}


def with_base(names: list[str]) -> list[str]:
    """The parts, with the base before the first that needs it."""
    first = next((i for i, name in enumerate(names) if PARTS[name].needs_base), len(names))
    needed = first < len(names) and "base" not in names[:first]
    return [*names[:first], *(["base"] if needed else []), *(n for n in names[first:] if n != "base")]


def baseline(name: str) -> str:
    """Our training of the same method and length; empty where the part is no training."""
    asked = PARTS[name].asked
    return f"ours-{asked['method']}-{asked['length']}" if asked else ""


def largest_difference(results: dict[str, dict], name: str, other: str) -> float | None:
    """How far apart the losses of two trainings are in the step where they are farthest; None where one is missing."""
    losses = [results.get(each, {}).get("losses") for each in (name, other)]
    return max(abs(a - b) for a, b in zip(*losses, strict=False)) if all(losses) else None


def table(results: dict[str, dict], device: str) -> str:
    """The trainings in Markdown, a row each; "–" where there is nothing to say."""
    kind = "resident" if device == CPU else "allocated"
    titles = ("", "tokens/s", "ours to it", "step", f"peak {kind}", "reserved", "estimated", "MFU",
              "the recipe's three epochs", "losses from ours'")  # fmt: skip
    rows = [row(results, name) for name in PARTS if name in results and baseline(name)]
    lines = [titles, ["---"] * len(titles), *([*cells, *["–"] * (len(titles) - len(cells))] for cells in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def row(results: dict[str, dict], name: str) -> list[str]:
    """The cells of a training, fewer where it failed."""
    seen, ours = results[name], results.get(baseline(name), {})
    if failed := why(seen):
        return [name, f"failed: {failed}"]
    ratio = f"{ours['tokens_per_second'] / seen['tokens_per_second']:.2f}" if "tokens_per_second" in ours else "–"
    memory = [f"{seen[key] / GIB:.2f} GiB" if key in seen else "–" for key in ("peak", "reserved", "estimate")]
    difference = largest_difference(results, name, baseline(name))
    return [
        name,
        f"{seen['tokens_per_second']:,.0f}",
        ratio,
        f"{seen['step_seconds']:.2f} s",
        *memory,
        f"{100 * seen['share']:.1f} %",
        f"{seen['hours']:.1f} h" if "hours" in seen else "–",
        f"{difference:.4f}" if difference is not None and name != baseline(name) else "–",
    ]


if __name__ == "__main__":
    main()
