"""What a user meets first: choices that stay or go, a wrong folder, no name for Git, one stage alone, Windows' Git."""

from pathlib import Path

import pytest

from stages.lib.core import params
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_text
from support.checkout import call, done, fresh_checkout

CHOOSE = ["python", "-m", "stages.lib.settings.choose"]
EXP = ["dvc", "exp", "run"]


@pytest.fixture
def checkout(tmp_path) -> Path:
    fresh_checkout(tmp_path / "checkout")
    return tmp_path / "checkout"


def value(folder: Path, key: str, kind: type):
    return params.load(key, kind, folder / "params.yaml")


def own_files(folder: Path) -> list[str]:
    """Choices of data of one's own, whose names need quotes."""
    choices = ["data=local"]
    for name in ("chatdoctor", "medqa_train", "medqa_test"):
        (folder / f"{name}, [1] it's.json").write_text("[]")
        choices.append(f'data.{name}="{name}, [1] it\'s.json"')
    return choices


def test_a_run_says_what_it_goes_by_and_what_it_went_by_before(checkout):
    local = [part for choice in own_files(checkout) for part in ("-S", choice)]
    assert "data: local (chatdoctor, [1] it's.json, " in done(checkout, *EXP, *local, "config")
    first, *_ = done(checkout, *EXP, "-S", "train.learning_rate=1.0e-3", "config").splitlines()
    assert first.startswith("data: sample (before: local (chatdoctor, [1] it's.json, ")
    assert first.endswith("; model: smollm2-135m; training: lora")
    said = done(checkout, "dvc", "repro", "--force", "config").splitlines()
    assert "data: sample; model: smollm2-135m; training: lora" in said


def test_choices_stay_until_git_takes_them_back(checkout):
    before = read_text(checkout / "conf/config.yaml").splitlines()
    done(checkout, *CHOOSE, *own_files(checkout), "train=qlora", "train/launch=ddp", "train.learning_rate=2.0e-5")
    assert "Running stage 'config'" in done(checkout, "dvc", "repro", "config")
    done(checkout, *EXP, "-S", "seed=7", "config")
    assert value(checkout, "seed", int) == 7
    assert value(checkout, "data.chatdoctor", str) == "chatdoctor, [1] it's.json"
    assert value(checkout, "train.launch.strategy", str) == "ddp"
    assert (value(checkout, "train.quantization", str), value(checkout, "train.learning_rate", float)) == ("4bit", 2e-5)
    after = read_text(checkout / "conf/config.yaml").splitlines()
    assert [line for line in before if line not in after] == ["- data: sample", "- train: lora"]

    done(checkout, *CHOOSE, "data=smoke")
    with pytest.raises(UserError, match="chatdoctor"):  # what was chosen below data=local went with it
        value(checkout, "data.chatdoctor", str)
    done(checkout, "git", "checkout", "--quiet", "conf")
    done(checkout, *EXP, "config")
    assert done(checkout, "git", "status", "--porcelain", "conf", "params.yaml") == ""


def test_a_choice_that_cannot_stay_changes_nothing(checkout):
    done(checkout, *CHOOSE, "+experiment=smoke", "train.learning_rate=2.0e-5")
    assert value(checkout, "data.name", str) == "smoke"
    before = [read_text(checkout / name) for name in ("conf/config.yaml", "params.yaml")]
    for choice, why in (("train.lorra=3", "train.lorra"), ("seed=1,2", "Ambiguous"), ("~seed", "expected KEY=VALUE")):
        result = call(checkout, *CHOOSE, choice)
        assert result.returncode == 1 and why in result.stderr and "Traceback" not in result.stderr
    assert "an experiment is chosen there" in call(checkout, *CHOOSE, "data=sample").stderr
    assert [read_text(checkout / name) for name in ("conf/config.yaml", "params.yaml")] == before


def test_a_run_from_a_subfolder_is_refused(checkout):
    (checkout / "README.md").write_text("edited")
    result = call(checkout / "stages", *EXP, "-S", "seed=7", "../dvc.yaml:config")
    assert result.returncode != 0 and f"run it in {checkout}" in result.stderr
    assert done(checkout, "git", "status", "--porcelain") == " M README.md\n"


def test_one_stage_alone_looks_at_conf_itself(checkout):
    done(checkout, "dvc", "repro", "fetch")
    conf = checkout / "conf/config.yaml"
    conf.write_text(conf.read_text().replace("seed: 42", "seed: 43"))
    for alone in (["--single-item", "--force"], ["-fs"]):
        result = call(checkout, "dvc", "repro", *alone, "fetch")
        assert result.returncode != 0 and "has changed since params.yaml was composed" in result.stderr
    done(checkout, "python", "-m", "stages.fetch")  # as in a run whose conf/ is edited while it goes on
    done(checkout, *EXP, "config")
    done(checkout, "dvc", "repro", "--single-item", "--force", "fetch")


def test_without_a_name_for_git_a_run_says_what_the_next_one_needs(checkout, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    assert "Git has no" not in call(checkout, *EXP, "--dry").stderr
    done(checkout, "git", "config", "--unset", "user.email")
    said = call(checkout, *EXP, "--dry").stderr
    assert "Git has no user.email, without which" in said and '`git config --global user.email "…"`' in said


def test_a_checkout_with_windows_line_ends_in_git_has_the_same_digest(checkout):
    done(checkout.parent, "git", "clone", "--quiet", "-c", "core.autocrlf=true", "checkout", "other")
    assert "Running stage 'config'" in done(checkout.parent / "other", "dvc", "repro", "config")
