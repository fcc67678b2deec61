from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conftest import ROOT
from stages.lib import config
from stages.lib.errors import UserError


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


def test_the_committed_params_are_valid():
    assert config.section(config.load(ROOT / "params.yaml"), "train.lora.r") > 0


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
