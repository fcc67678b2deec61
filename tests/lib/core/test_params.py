import shutil
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump
from dvc.utils.serialize import dumps_yaml
from omegaconf import OmegaConf

from conftest import ROOT, prepare_settings
from stages import config as stage
from stages.lib import config
from stages.lib.data_schema import Source
from stages.lib.errors import UserError
from stages.lib.files import sha256


@pytest.fixture
def params(tmp_path):
    """Write params.yaml with some keys set to other values; None removes the key."""

    def write(changes: dict) -> Path:
        settings = OmegaConf.load(ROOT / "params.yaml")
        for key, value in changes.items():
            OmegaConf.update(settings, key, value, force_add=True)
        path = tmp_path / "params.yaml"
        OmegaConf.save(settings, path)
        return path

    return write


def composed(folder: Path, *overrides: str) -> config.Config:
    """The configuration as DVC composes it from conf/."""
    path = folder / "params.yaml"
    compose_and_dump(path, str(ROOT / "conf"), None, "config", str(ROOT / "conf/plugins"), list(overrides))
    return config.load(path)


def test_the_committed_params_are_no_older_than_conf():
    assert config.load(ROOT / "params.yaml").conf_digest == stage.digest_of(ROOT / "conf")


def test_the_8b_recipe_row_by_row(tmp_path):
    settings = composed(tmp_path, "+experiment=chatdoctor-8b")
    train, model = settings.train, settings.model
    assert (train.lora.r, train.lora.lora_alpha, train.lora.lora_dropout) == (64, 128, 0.05)
    assert (train.per_device_train_batch_size, train.gradient_accumulation_steps) == (2, 16)
    assert (train.num_train_epochs, train.learning_rate, train.precision) == (3, 2e-5, "bf16")
    assert (train.quantization, train.gradient_checkpointing) == ("8bit", True)
    assert model.hub.repo == "meta-llama/Meta-Llama-3-8B-Instruct"
    assert model.hub.revision == "8afb486c1db24fe5011ec46dfbe5b5dccdb575c2"
    assert {source.kind for source in settings.data.sources} == {"hub"}
    assert settings.data.synthetic is False


def test_every_choice_composes_and_is_valid(tmp_path):
    choices = {path.relative_to(ROOT / "conf").with_suffix("").as_posix() for path in ROOT.glob("conf/*/*.yaml")}
    for choice in choices - {"data/prepare"}:  # a part of every data choice, not one itself
        composed(tmp_path, f"+{choice.replace('/', '=')}" if "experiment" in choice else choice.replace("/", "="))


def test_a_local_file_is_pinned_by_its_hash_at_composition(tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text("[]")
    (first, *others) = composed(tmp_path, "data=local", f"data.chatdoctor={mine}").data.sources
    assert (first.path, first.sha256) == (str(mine), sha256(mine))
    assert all(source.sha256 == "" for source in others)


def test_columns_of_other_names_are_mapped_as_the_readme_says(tmp_path):
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if "sources.0.columns" in line)
    mapped = composed(tmp_path, "data=local", line.split("'")[1]).data.sources
    assert [source.columns for source in mapped] == [{"output": "answer_icliniq"}, {}, {}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "xls"}, "format is 'xls', expected one of json"),
        ({"columns": {"outptu": "x"}}, "columns is .*outptu.*, expected names among"),
        ({"name": "sources"}, "manifest"),
        ({"count": -1}, "count is -1"),
        ({"sha256": "ABC"}, "64 hex digits"),
        ({"kind": "hub"}, "repo is '', expected a value"),
    ],
)
def test_a_bad_source_is_named(change, message):
    plain = {"name": "mine", "records": "dialogues", "kind": "file", "repo": "", "revision": "", "path": "a.json"}
    plain |= {"sha256": "", "format": "json", "columns": {}, "licence": "", "count": 0}
    with pytest.raises(UserError, match=message):
        Source(**plain | change)


def test_the_digest_changes_with_any_file_of_conf(tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    marker = tmp_path / "marker"
    digest = stage.digest_of(conf)
    stage.main(digest, conf, marker)
    with (conf / "track/wandb.yaml").open("a") as file:
        file.write("# edited\n")
    with pytest.raises(UserError, match="dvc exp run"):
        stage.main(digest, conf, marker)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.lora.r", 0),
        ("train.lora.r", "many"),
        ("train.lora.rr", 8),
        ("train.learning_rate", "2e-5x"),
        ("train.learning_rate", -1.0),
        ("train.precision", "int3"),
        ("export.types", ["q4_K_X"]),
        ("export.types", []),
        ("data.prepare.test", 0.9),
        ("model.scratch.hidden_size", 300),
        ("template.pad_token", "<|im_end|>"),
        ("unknown", 1),
    ],
)
def test_a_bad_value_is_named_with_its_full_key(params, key, value):
    with pytest.raises(UserError) as error:
        config.load(params({key: value}))
    assert key in str(error.value)


def test_a_missing_key_is_named(params, tmp_path):
    path = params({})
    settings = OmegaConf.load(path)
    del settings.train.lora.lora_alpha
    OmegaConf.save(settings, path)
    with pytest.raises(UserError, match=r"train\.lora\.lora_alpha"):
        config.load(path)


def test_broken_yaml_and_no_file(tmp_path):
    (tmp_path / "params.yaml").write_text("a: [1,\n")
    with pytest.raises(UserError, match="not valid YAML"):
        config.load(tmp_path / "params.yaml")
    with pytest.raises(UserError, match="no such file"):
        config.load(tmp_path / "none.yaml")


def test_params_survive_dvcs_lock_file():
    """It folds long texts; one that comes back changed would make its stage stale for ever."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for depth in range(6):
        nested = params
        for _ in range(depth):
            nested = {"x": nested}
        assert yaml.safe_load(dumps_yaml(nested)) == nested


@pytest.mark.parametrize("pattern", ["hello", "^(", "^don't", "^“hi”"])
def test_a_boilerplate_pattern_that_cannot_be_used_is_named(pattern):
    with pytest.raises(UserError, match=r"data\.prepare\.boilerplate\.mine"):
        prepare_settings(boilerplate={"mine": pattern})
