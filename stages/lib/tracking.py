"""The trainer's log history: as a table, and as one Weights & Biases run written from it."""

import csv
import io
import os

COLUMNS = ("step", "epoch", "learning_rate", "grad_norm", "loss", "eval_loss")


def loss_table(history: list[dict]) -> str:
    """CSV with one line a step; steps that only measured the validation loss leave the rest empty."""
    rows: dict[int, dict] = {}
    for entry in history:
        if "loss" in entry or "eval_loss" in entry:
            rows.setdefault(entry["step"], {}).update({k: v for k, v in entry.items() if k in COLUMNS})
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[step] for step in sorted(rows))
    return out.getvalue()


def summary(history: list[dict]) -> dict:
    """Steps, and the last training and validation loss.

    The trainer's own `train_loss` is not used: after a resume it averages just a part of the steps.
    """
    return {
        "steps": history[-1]["step"],
        "train_loss": [entry["loss"] for entry in history if "loss" in entry][-1],
        "eval_loss": [entry["eval_loss"] for entry in history if "eval_loss" in entry][-1],
    }


def write_run(mode: str, project: str, run_id: str, history: list[dict]) -> None:
    """Write one run with a stable id from the finished history, so that a resumed training loses no step."""
    if mode == "disabled":
        return
    import wandb

    folder = os.environ.get("DVC_ROOT", ".")
    settings = wandb.Settings(silent=True, console="off")
    with wandb.init(project=project, id=run_id, mode=mode, dir=folder, resume="allow", settings=settings) as run:
        for entry in history:
            run.log({k: v for k, v in entry.items() if k != "step"}, step=entry["step"])
