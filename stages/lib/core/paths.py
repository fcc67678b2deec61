"""Every path of the house, relative to its top folder: dvc.yaml names the same ones."""

import os
from pathlib import Path

CONF = Path("conf")
PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")
CONFIG_MARKER = Path("data/config.checked")
CARD = Path("data/CARD.md")
SAMPLE = Path("data/sample")
SAFETY = Path("data/safety")
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
TOKENIZED = Path("data/tokenized")
MODELS = Path("models")
BASE = Path("models/base")
ADAPTER = Path("models/adapter")
MERGED = Path("models/merged")
GGUF = Path("models/gguf")
IMATRIX = Path("models/imatrix.gguf")
METRICS = Path("metrics")
PLOTS = Path("plots")
RESULTS = Path("results.md")
REPORT = Path("report.html")
MODEL_CARD = Path("models/CARD.md")
COST = Path(".cost")  # untracked: what each stage last took on this machine
F16 = "f16"  # the kind of GGUF that the others are quantised from
LORA = "lora-f16"  # the adapter alone


def checkout() -> Path:
    """The main checkout, where downloads and checkpoints are kept: DVC runs queued experiments in temporary ones."""
    return Path(os.environ.get("DVC_ROOT", "."))


def gguf(kind: str) -> Path:
    """The GGUF of one kind: F16, LORA, or a quant type such as `q4_K_M`."""
    return GGUF / f"llama3-chat-doctor-{kind}.gguf"


def predictions(metrics: Path, name: str) -> Path:
    """What a model predicted."""
    return metrics / "models" / name / "predictions.jsonl"


def scores(metrics: Path, name: str) -> Path:
    """What its predictions are worth."""
    return metrics / "models" / name / "scores.json"


def verification(metrics: Path, name: str) -> Path:
    """What was verified of a GGUF."""
    return metrics / "models" / name / "verification.json"
