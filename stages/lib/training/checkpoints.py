"""Where a training run keeps its checkpoints: outside DVC's outs, which are deleted before a stage runs."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from stages.lib.core.errors import UserError
from stages.lib.core.files import remove, sha256
from stages.lib.core.paths import checkout
from stages.lib.settings.train import Train

LIB = Path(__file__).parents[1]
# What can change the weights that a training ends with, relative to stages/lib. The other modules that the trainer
# imports are listed in tests/lib/training/test_checkpoints.py, each with the reason why it cannot.
CODE = (
    "model/loading.py",
    "training/adapters.py",
    "training/attention.py",
    "training/loss.py",
    "training/packed_llama.py",
    "training/trainer.py",
)


def key_of(train: Train, seed: int, inputs: list[Path]) -> str:
    """A name for everything that decides the weights of a training, so that nothing ever resumes on something else.

    In it are: the values of the `train` section as the machine has decided them (`hardware.resolved`), but for those
    that say when a run is warned of or stopped, where its processes meet, and what becomes of dialogues that are too
    long; the seed; name and bytes of every file in the `inputs` (data/tokenized and models/base, which names the tokens
    whose rows are trained); and the bytes of the code that makes weights of them, CODE. Nothing else is: no other value
    of params.yaml, and none of the code that only looks on, says, draws, starts or refuses.
    """
    settings = asdict(train)
    del settings["spike_factor"], settings["divergence_factor"], settings["launch"]["rendezvous"]
    del settings["too_long"]  # tokenize has acted on it: the result is among the inputs
    digest = hashlib.sha256(json.dumps([settings, seed], sort_keys=True).encode())
    for root in inputs:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            digest.update(f"{path.relative_to(root)} {sha256(path)}\n".encode())
    for name in CODE:
        digest.update(f"{name} {sha256(LIB / name)}\n".encode())
    return digest.hexdigest()[:16]


def folder_of(key: str) -> Path:
    """Where the checkpoints of a key are."""
    return checkout() / ".checkpoints" / key


@contextmanager
def locked(key: str) -> Iterator[Path]:
    """The checkpoint folder of a key, held by one trainer at a time and without a killed save's remains.

    Raises UserError where another trainer holds it.
    """
    folder = folder_of(key)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            for path in folder.glob("checkpoint-*"):
                if not _complete(path):
                    remove(path)
            yield folder
    except Timeout as error:
        raise UserError(f"{folder}: another training run holds these checkpoints; wait for it or stop it") from error


def newest(folder: Path) -> Path | None:
    """The last complete checkpoint."""
    complete = filter(_complete, folder.glob("checkpoint-*"))
    return max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)


def _complete(checkpoint: Path) -> bool:
    """Whether trainer_state.json, which is written last, is there and whole."""
    try:
        return isinstance(json.loads((checkpoint / "trainer_state.json").read_text()), dict)
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def discard(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    remove(folder)
