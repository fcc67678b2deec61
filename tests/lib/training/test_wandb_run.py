"""A finished training becomes a W&B run that lacks no step."""

import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages.lib.core.files import sha256
from stages.lib.settings.track import Track
from stages.lib.training import history, wandb_run
from support.log_history import HISTORY
from support.settings import ROOT

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

    def run(mode: str, log: list[dict] = HISTORY) -> list[Path]:
        settings = {"train": {"lora": {"r": 8}, "learning_rate": 1e-3}, "seed": 7}
        origin = wandb_run.Origin(settings, lock, [Path("models/base")])
        wandb_run.write_run(Track(mode=mode, project="house"), "key42", log, adapter, origin)
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
    whole = {row["step"]: {k: v for k, v in row.items() if k != "step"} for row in history.steps(HISTORY)}
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
    assert config["git"] == wandb_run.revision()

    last: dict = {}
    for record in records:
        last |= record.get("summary", {}).get("update", {})
    summary = history.summary(HISTORY)
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
    monkeypatch.setattr(wandb_run, "SYNC_LIMIT", 2)
    (folder,) = write("online")
    assert f"no answer within 2 s; nothing is lost: `wandb sync {folder}`" in caplog.text


def test_a_run_counts_as_sent_when_wandb_has_marked_it(write, monkeypatch, caplog):
    def sent(command, **_):
        folder = Path(command[-1])
        (folder / "run-key42.wandb.synced").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(wandb_run.subprocess, "run", sent)
    monkeypatch.setattr(wandb_run, "revision", lambda: {})
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
    assert wandb_run.revision() == {"revision": "unknown", "uncommitted": []}
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    (tmp_path / "code.py").write_text("1\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    found = wandb_run.revision()
    assert len(found["revision"]) == 40
    assert found["uncommitted"] == []
    (tmp_path / "code.py").write_text("2\n")
    assert wandb_run.revision() == {"revision": found["revision"], "uncommitted": ["code.py"]}


@pytest.mark.parametrize(("name", "mode"), [("wandb", "online"), ("none", "disabled")])
def test_the_choices_of_conf_differ_in_the_mode_only(name, mode):
    choices = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf/track").glob("*.yaml")}
    assert choices["offline"].keys() == {"mode", "project"}
    assert choices["offline"]["mode"] == "offline"
    assert choices[name] == {"defaults": ["offline", "_self_"], "mode": mode}
