"""What a training leaves to look at: tables, a summary, and a W&B run that lacks no step."""

import csv
import io
import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from stages.lib import drawing, tracking
from stages.lib.files import sha256


def training(step: int, loss: float, **more) -> dict:
    figures = {"grad_norm": 0.5 + step / 7, "learning_rate": 1e-3 / step}
    speed = {"tokens_per_second": 900.0 + step, "peak_memory": 2_500_000_000}
    return {"step": step, "epoch": step / 6, "loss": loss, **figures, **speed, **more}


def validation(step: int, loss: float) -> dict:
    return {"step": step, "epoch": step / 6, "eval_loss": loss}


# As after a resume from step 4: the measurement there was logged by the killed process and by the next one.
HISTORY = [
    training(1, 3.1),
    training(2, 0.1 + 0.2),
    validation(2, 1.5),
    training(3, 2.5),
    training(4, 9.0, usual_loss=2.5, spike_records=["a1", "b2"]),
    validation(4, 1.25),
    validation(4, 1.25),
    training(5, 2.0),
    training(6, 1.9),
    validation(6, 1.4),
]


def rows(table: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(table)))


def test_the_loss_table_has_each_step_once_with_every_digit():
    loss = rows(tracking.tables(HISTORY)["loss"])
    assert [row["step"] for row in loss] == ["1", "2", "3", "4", "5", "6"]
    assert [float(row["loss"]) for row in loss] == [3.1, 0.1 + 0.2, 2.5, 9.0, 2.0, 1.9]
    assert [row["eval_loss"] for row in loss] == ["", "1.5", "", "1.25", "", "1.4"]
    assert float(loss[3]["eval_perplexity"]) == math.exp(1.25)
    assert float(loss[2]["learning_rate"]) == 1e-3 / 3
    assert float(loss[2]["grad_norm"]) == 0.5 + 3 / 7


def test_only_the_speed_table_changes_with_the_machine():
    slower = [entry | {"tokens_per_second": 1.0, "peak_memory": 7} for entry in HISTORY if "loss" in entry]
    slower += [entry for entry in HISTORY if "loss" not in entry]
    here, there = tracking.tables(HISTORY), tracking.tables(slower)
    assert here["loss"] == there["loss"]
    assert here["spikes"] == there["spikes"]
    assert tracking.summary(HISTORY) == tracking.summary(slower)
    assert rows(here["speed"])[5] == {"step": "6", "tokens_per_second": "906.0", "peak_memory_gb": "2.5"}


def test_spikes_name_their_records():
    spikes = tracking.tables(HISTORY)["spikes"]
    assert rows(spikes) == [{"step": "4", "loss": "9.0", "usual_loss": "2.5", "records": "a1 b2"}]
    assert tracking.tables(HISTORY[:3])["spikes"] == "step,loss,usual_loss,records\n"


def test_the_summary_has_the_last_training_loss_and_the_best_validation_loss():
    best = {"eval_loss": 1.25, "eval_perplexity": math.exp(1.25), "best_step": 4}
    assert tracking.summary(HISTORY) == {"steps": 6, "train_loss": 1.9, **best, "spikes": 1}
    never = tracking.summary(HISTORY[:1])
    assert never["steps"] == 1
    assert never["eval_loss"] is never["eval_perplexity"] is never["best_step"] is None


@pytest.mark.parametrize("history", [HISTORY, HISTORY[:1], [training(step, 1 / step) for step in range(1, 90)]])
def test_the_loss_curve_is_drawn_however_short_the_training_was(history):
    table = tracking.tables(history)["loss"]
    picture = drawing.loss_curve(table)
    assert picture == drawing.loss_curve(table)
    assert ("validation" in picture) == any("eval_loss" in entry for entry in history)
    assert ("median" in picture) == (len(history) > 50)


LOCK = {
    "fetch": {"outs": [{"path": "data/raw", "md5": "1.dir"}]},
    "prepare": {"deps": [{"path": "data/raw", "md5": "1.dir"}], "outs": [{"path": "data/prepared", "md5": "2.dir"}]},
    "base": {"deps": [{"path": "data/prepared", "md5": "2.dir"}], "outs": [{"path": "models/base", "md5": "3.dir"}]},
    "train": {"deps": [{"path": "models/base", "md5": "0.dir"}], "outs": [{"path": "models/adapter", "md5": "0.dir"}]},
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a run of a history below tmp_path, with nothing of this machine's own W&B settings."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_RESUME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    adapter, lock = tmp_path / "adapter", tmp_path / "dvc.lock"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": LOCK}))

    def run(mode: str, history: list[dict] = HISTORY) -> list[Path]:
        settings = {"train": {"lora": {"r": 8}, "learning_rate": 1e-3}, "seed": 7}
        tracking.write_run(mode, "house", "key42", history, adapter, settings, lock, [Path("models/base")])
        return sorted(tmp_path.glob("wandb/offline-run-*"))

    return run


def read(folder: Path) -> list[dict]:
    """The records of an offline run, by W&B's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout.splitlines()
    return [json.loads(line) for line in lines]


def steps_of(records: list[dict]) -> dict[int, dict]:
    """What was logged by step, without W&B's own entries; no step may be there twice."""
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    found = {item["_step"]: {k: v for k, v in item.items() if not k.startswith("_")} for item in items}
    assert len(found) == len(items)
    return found


def test_wandb_reads_the_offline_run_back_whole(write, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (folder,) = write("offline")
    assert f"`wandb sync {folder}`" in caplog.text
    records = read(folder)

    found = steps_of(records)
    assert list(found) == [1, 2, 3, 4, 5, 6]
    whole = {row["step"]: {k: v for k, v in row.items() if k != "step"} for row in tracking.steps(HISTORY)}
    assert found == whole  # to the last digit
    assert found[4]["spike_records"] == ["a1", "b2"]
    assert found[4]["eval_perplexity"] == math.exp(1.25)
    assert found[4]["peak_memory_gb"] == 2.5

    (start,) = [record["run"] for record in records if record["type"] == "run"]
    assert (start["run_id"], start["project"], start.get("resume", False)) == ("key42", "house", False)
    config = start["config"]["update"]
    assert config["train"] == {"lora": {"r": 8}, "learning_rate": 1e-3}
    assert config["seed"] == 7
    assert config["hashes"] == {"data/prepared": "2.dir", "data/raw": "1.dir", "models/base": "3.dir"}
    assert config["adapter"] == {"adapter_model.safetensors": sha256(tmp_path / "adapter/adapter_model.safetensors")}
    assert config["git"] == tracking.revision()

    last: dict = {}
    for record in records:
        last |= record.get("summary", {}).get("update", {})
    summary = tracking.summary(HISTORY)
    assert {key: last[key] for key in summary} == summary  # the best validation loss, not the last step's
    assert records[-1]["exit"]["exit_code"] == 0


def test_a_repeated_training_replaces_its_run(write):
    (first,) = write("offline", HISTORY[:5])
    (second,) = write("offline")
    assert first != second
    assert list(steps_of(read(second))) == [1, 2, 3, 4, 5, 6]
    (third,) = write("offline")  # within the same second, so that W&B gives its folder another ending
    assert [path.name for path in third.glob("*.wandb")] == ["run-key42.wandb"]


def test_disabled_writes_nothing(write, tmp_path):
    assert write("disabled") == []
    assert not (tmp_path / "wandb").exists()


def test_a_run_that_cannot_be_sent_stays_and_says_how(write, caplog):
    (folder,) = write("online")
    assert f"No API key configured. Use `wandb login` to log in.; nothing is lost: `wandb sync {folder}`" in caplog.text
    assert list(steps_of(read(folder))) == [1, 2, 3, 4, 5, 6]


def test_a_silent_server_does_not_hold_the_stage(write, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(tracking, "SYNC_LIMIT", 2)
    (folder,) = write("online")
    assert f"no answer within 2 s; nothing is lost: `wandb sync {folder}`" in caplog.text


def test_a_run_counts_as_sent_when_wandb_has_marked_it(write, monkeypatch, caplog):
    def sent(command, **_):
        folder = Path(command[-1])
        (folder / "run-key42.wandb.synced").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(tracking.subprocess, "run", sent)
    monkeypatch.setattr(tracking, "revision", lambda: {})
    caplog.set_level(logging.INFO)
    write("online")
    assert "W&B run key42 sent to project house" in caplog.text


def test_a_failure_of_wandb_does_not_lose_the_training(write, monkeypatch, caplog):
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(OSError("disk full")))
    assert write("offline") == []
    assert "W&B run not written: disk full" in caplog.text


def test_git_says_which_files_are_not_committed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tracking.revision() == {"revision": "unknown", "uncommitted": []}
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    (tmp_path / "code.py").write_text("1\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    found = tracking.revision()
    assert len(found["revision"]) == 40
    assert found["uncommitted"] == []
    (tmp_path / "code.py").write_text("2\n")
    assert tracking.revision() == {"revision": found["revision"], "uncommitted": ["code.py"]}


@pytest.mark.parametrize(("name", "mode"), [("wandb", "online"), ("none", "disabled")])
def test_the_choices_of_conf_differ_in_the_mode_only(name, mode):
    choices = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf/track").glob("*.yaml")}
    assert choices["offline"].keys() == {"mode", "project"}
    assert choices["offline"]["mode"] == "offline"
    assert choices[name] == {"defaults": ["offline", "_self_"], "mode": mode}
