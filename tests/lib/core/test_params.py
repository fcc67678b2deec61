"""params.yaml: composed from conf/, read by section."""

import shlex
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import dumps_yaml
from omegaconf import OmegaConf

from stages.lib.core import params
from stages.lib.core.composition import conf_digest, quoted
from stages.lib.core.errors import UserError
from stages.lib.core.files import sha256
from stages.lib.settings.data import Source
from stages.lib.settings.train import Train
from support.params import composed, read
from support.settings import ROOT


def edited(folder: Path, key: str, value: object) -> Path:
    """params.yaml with one key set to another value."""
    settings = OmegaConf.load(ROOT / "params.yaml")
    OmegaConf.update(settings, key, value, force_add=True)
    OmegaConf.save(settings, folder / "params.yaml")
    return folder / "params.yaml"


def test_the_committed_params_are_what_conf_composes(tmp_path):
    assert composed(tmp_path) == read()
    assert read().conf_digest == conf_digest(ROOT / "conf")


def test_a_section_is_read_as_the_type_that_is_asked_for():
    assert params.load("seed", int) == 42
    assert params.load("export.types", list[str]) == ["q4_K_M"]
    assert params.load("evaluate.models", dict[str, str])["tuned"] == "merged"
    assert [type(source) for source in params.load("data.sources", list[Source])] == [Source] * 3
    both = params.load_all({"train": Train, "template.name": str}, ROOT / "params.yaml")
    assert both == [read().train, "chatml"]


def test_another_section_may_be_as_bad_as_it_likes(tmp_path):
    path = edited(tmp_path, "export.types", ["q4_K_X"])
    assert params.load("train", Train, path) == read().train


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


@pytest.mark.parametrize("name", ["a b.json", "a, [1] {b} (c)=d.json", 'it\'s "é".json'])
def test_a_path_of_any_letters_survives_its_quotes(tmp_path, name):
    mine = tmp_path / name
    mine.write_text("[]")
    (choice,) = shlex.split(quoted("data.chatdoctor", str(mine)))
    source = composed(tmp_path, "data=local", choice).data.sources[0]
    assert (source.path, source.sha256) == (str(mine), sha256(mine))


def test_the_quotes_of_the_readme_are_these():
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if "[1].json" in line]
    command = line.split("`")[1]
    assert command == "-S " + quoted("data.chatdoctor", "My files/A, B [1].json")


@pytest.mark.parametrize("model", ["smollm2-135m", "llama3.2-1b-instruct", "tiny"])
def test_a_smoke_run_goes_over_any_model(tmp_path, model):
    settings = composed(tmp_path, "+experiment=smoke", f"model={model}")
    assert (settings.model.name, settings.data.name) == (model, "smoke")


def test_columns_of_other_names_are_mapped_as_the_readme_says(tmp_path):
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if "sources.0.columns" in line)
    mapped = composed(tmp_path, "data=local", line.split("'")[1]).data.sources
    assert [source.columns for source in mapped] == [{"output": "answer_icliniq"}, {}, {}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_option": 2}, "first_option is 2, expected 0, 1 or null"),
        ({"columns": {"outptu": "x"}}, "columns is .*outptu.*, expected names among"),
        ({"columns": {"question": "x"}}, "columns is .*question.*, expected names among messages, instr"),
        ({"name": "sources"}, "manifest"),
        ({"count": -1}, "count is -1"),
        ({"sha256": "ABC"}, "64 hex digits"),
        ({"kind": "hub"}, "repo is '', expected a value"),
    ],
)
def test_a_bad_source_is_named(change, message):
    plain = {"name": "mine", "records": "dialogues", "kind": "file", "repo": "", "revision": "", "path": "a.json"}
    plain |= {"sha256": "", "columns": {}, "first_option": None, "licence": "", "count": 0}
    with pytest.raises(UserError, match=message):
        Source(**plain | change)


def test_a_bad_value_is_named_with_its_full_key(tmp_path):
    for key, value in (("train.lora.r", "many"), ("train.lora.r", 0), ("train.lora.rr", 8)):
        with pytest.raises(UserError, match=key.replace(".", r"\.")):
            params.load("train", Train, edited(tmp_path, key, value))


def test_a_missing_key_is_named(tmp_path):
    path = edited(tmp_path, "seed", 1)
    settings = OmegaConf.load(path)
    del settings.train.lora.lora_alpha
    OmegaConf.save(settings, path)
    with pytest.raises(UserError, match=r"train\.lora\.lora_alpha"):
        params.load("train", Train, path)
    with pytest.raises(UserError, match=r"train\.lora\.depth"):
        params.load("train.lora.depth", int, path)


def test_broken_yaml_and_no_file(tmp_path):
    (tmp_path / "params.yaml").write_text("a: [1,\n")
    with pytest.raises(UserError, match="not valid YAML"):
        params.load("seed", int, tmp_path / "params.yaml")
    with pytest.raises(UserError, match="no such file"):
        params.load("seed", int, tmp_path / "none.yaml")


def test_params_survive_dvcs_lock_file():
    """It folds long texts; one that comes back changed would make its stage stale for ever."""
    composed_params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for depth in range(6):
        nested = composed_params
        for _ in range(depth):
            nested = {"x": nested}
        assert yaml.safe_load(dumps_yaml(nested)) == nested
