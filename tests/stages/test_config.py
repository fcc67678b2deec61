"""The guard before every other stage: conf/ and params.yaml agree, and every value is possible."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from stages import config
from stages.lib.core.errors import UserError
from support.params import read
from support.settings import ROOT


@pytest.fixture
def guard(tmp_path):
    """Run the stage on params.yaml with some keys set to other values; returns its marker."""

    def run(changes: dict, conf: Path = ROOT / "conf") -> Path:
        settings = OmegaConf.load(ROOT / "params.yaml")
        for key, value in changes.items():
            OmegaConf.update(settings, key, value, force_add=True)
        OmegaConf.save(settings, tmp_path / "params.yaml")
        config.main(read(tmp_path / "params.yaml"), conf, tmp_path / "params.yaml", tmp_path / "marker")
        return tmp_path / "marker"

    return run


def test_the_committed_params_pass(guard):
    assert guard({}).is_file()


def test_the_digest_changes_with_any_file_of_conf(guard, tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    marker = guard({}, conf)
    marker.unlink()
    with (conf / "track/wandb.yaml").open("a") as file:
        file.write("# edited\n")
    with pytest.raises(UserError, match="dvc exp run"):
        guard({}, conf)
    assert not marker.exists()


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
        ("export.tensor_types", {"ffn_upp": "q8_0"}),
        ("export.tensor_types.ffn_up", "q9_0"),
        ("export.verified", ["q4_K_M"]),
        ("evaluate.compared", ["base"]),
        ("evaluate.gates.better", ["fame"]),
        ("data.prepare.test", 0.9),
        ("data.prepare.boilerplate", ["goodbye"]),
        ("model.gguf.sha256", "123"),
        ("model.gguf.path", "base.gguf"),
        ("model.hub", {"repo": "no name", "revision": "a" * 40}),
        ("model.hub", {"repo": "owner/name", "revision": "main"}),
        ("evaluate.extra", ["tuned"]),
        ("data.prepare.max_words", 1),
        ("evaluate.gates.stopped", 1.5),
        ("evaluate.predict.context", 64),
        ("export.verify.context", 256),
        ("template.pad_tokens", []),
        ("seed", -1),
        ("seed", 1 << 32),
        ("unknown", 1),
    ],
)
def test_a_bad_value_is_named_with_its_full_key(guard, key, value):
    with pytest.raises(UserError) as error:
        guard({key: value})
    assert key in str(error.value)


def test_a_model_from_scratch_has_no_template_to_keep(guard):
    scratch = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/model/tiny.yaml").scratch)
    assert guard({"model.gguf": None, "model.scratch": scratch}).is_file()
    with pytest.raises(UserError, match="no chat template of its own"):
        guard({"model.gguf": None, "model.scratch": scratch, "template.chat_template": None})


@pytest.mark.parametrize(("kind", "message"), [("file", "data.chatdoctor is not set"), ("http", "needs a sha256")])
def test_a_source_without_a_name_or_pin_ends_before_any_stage_removes_its_outs(guard, kind, message):
    with pytest.raises(UserError, match=message):
        guard({"data.sources.0.kind": kind, "data.sources.0.path": ""})
