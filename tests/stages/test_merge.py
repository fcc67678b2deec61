"""Every training method's merged float16 model is the model that was trained."""

import resource
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, sha256, write_json
from stages.lib.export import merging
from stages.lib.export.merging import merge
from stages.lib.model.loading import load_model, load_tokenizer, trained_token_ids
from stages.lib.settings.train import Lora
from stages.lib.training.trainer import Places, finetune
from support.settings import ROOT, train_settings

EVERY_KIND = True
EMBEDDING = "model.embed_tokens.weight"


def train(method, base, tokenized, folder):
    ids = trained_token_ids(base)
    lora = Lora(r=4, lora_alpha=16, lora_dropout=0.1, target_modules="all-linear")
    settings = train_settings(method=method, lora=lora, learning_rate=2e-3)
    finetune(settings, ids, 3, Places(tokenized, base, folder / "checkpoints", folder / "adapter"))
    return folder / "adapter"


@pytest.fixture(scope="module", params=["lora", "rslora", "dora"])
def tuned(request, base, tokenized, tmp_path_factory):
    """(method, adapter, merged)"""
    folder = tmp_path_factory.mktemp(request.param)
    adapter = train(request.param, base, tokenized, folder)
    merge(base, adapter, folder / "merged")
    return request.param, adapter, folder / "merged"


@pytest.fixture(scope="module")
def whole(base, tokenized, tmp_path_factory):
    """(trained, merged)"""
    folder = tmp_path_factory.mktemp("full")
    trained = train("full", base, tokenized, folder)
    merge(base, trained, folder / "merged")
    return trained, folder / "merged"


def weights(folder):
    return {name: tensor for shard in folder.glob("*.safetensors") for name, tensor in load_file(shard).items()}


def units_apart(one, other):
    """How many float16 numbers lie between two, at most, over two tensors."""
    places = []
    for tensor in (one, other):
        bits = tensor.view(torch.int16).int()
        places.append(torch.where(bits < 0, -(bits & 0x7FFF), bits))
    return (places[0] - places[1]).abs().max().item()


def edited(folder, target, change):
    """A copy of a trained folder with `change` done to its dictionary of tensors."""
    shutil.copytree(folder, target)
    (path,) = target.glob("*.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return target


def test_an_adapter_is_merged_as_peft_merges_it(base, tuned):
    from peft import PeftModel

    _, adapter, merged = tuned
    expected = PeftModel.from_pretrained(load_model(base), adapter).merge_and_unload().state_dict()
    if load_model(base).config.tie_word_embeddings:
        del expected["lm_head.weight"]  # the embedding, which is stored once
    actual, before = weights(merged), load_model(base).state_dict()
    assert actual.keys() == expected.keys()
    for name, weight in expected.items():
        assert actual[name].dtype == torch.float16
        assert units_apart(actual[name], weight.half()) <= 1, name
    changed = {name for name in actual if units_apart(actual[name], before[name].half()) > 1}
    assert changed == {name for name in actual if "norm" not in name}  # every matrix was trained


def test_a_float32_base_is_read_and_never_written(base, tuned, tmp_path):
    """By an adapter that does not say which base it was trained on: other bytes of the same weights."""
    _, adapter, merged = tuned
    adapter = shutil.copytree(adapter, tmp_path / "adapter", ignore=shutil.ignore_patterns("base.json"))
    load_model(base).save_pretrained(tmp_path / "base")
    before = sha256(tmp_path / "base/model.safetensors")
    merge(tmp_path / "base", adapter, tmp_path / "merged")
    assert sha256(tmp_path / "base/model.safetensors") == before
    assert sha256(tmp_path / "merged/model.safetensors") == sha256(merged / "model.safetensors")


def test_each_method_has_its_own_arithmetic(base, tuned):
    """The formulas of the papers, in float64, by hand."""
    method, adapter, merged = tuned
    name = "model.layers.1.mlp.up_proj"
    factors = {key: value.double() for key, value in load_file(adapter / "adapter_model.safetensors").items()}
    delta = factors[f"base_model.model.{name}.lora_B.weight"] @ factors[f"base_model.model.{name}.lora_A.weight"]
    expected = weights(base)[f"{name}.weight"].double() + {"lora": 4, "rslora": 8, "dora": 4}[method] * delta
    if method == "dora":
        magnitude = factors[f"base_model.model.{name}.lora_magnitude_vector"]
        before = weights(base)[f"{name}.weight"].double().norm(dim=1)
        assert (magnitude / before - 1).abs().max() > 1e-3  # it was trained
        expected = torch.diag(magnitude / expected.norm(dim=1)) @ expected
    assert units_apart(weights(merged)[f"{name}.weight"], expected.half()) <= 1


def test_a_whole_model_is_cast_once_and_the_rest_is_the_bases(base, whole):
    trained, merged = whole
    saved, actual, before = weights(trained), weights(merged), weights(base)
    assert actual.keys() == saved.keys() == before.keys()
    for name, weight in saved.items():
        assert torch.equal(actual[name], weight.half()), name
        assert not torch.equal(actual[name], before[name].half()), name
    config = read_json(base / "config.json") | {"dtype": "float16"}
    assert read_json(merged / "config.json") == config
    same = {path.name for path in base.iterdir()} - {"config.json", "model.safetensors"}
    assert {path.name for path in merged.iterdir()} == same | {"config.json", "model.safetensors"}
    assert all(sha256(merged / name) == sha256(base / name) for name in same)


def test_a_whole_model_predicts_what_was_trained(base, whole):
    ids = torch.tensor([load_tokenizer(base).encode("I have had a fever for three days.")])
    with torch.no_grad():
        trained, merged = (load_model(folder)(ids).logits for folder in whole)
        before = load_model(base)(ids).logits
    torch.testing.assert_close(merged, trained, atol=0.02, rtol=0)
    assert (before - trained).abs().max() > 0.5


def test_shards_are_the_bases_whatever_those_of_the_trained_model(base, whole, tmp_path):
    load_model(base, torch.bfloat16).save_pretrained(tmp_path / "base", max_shard_size="1MB")
    load_model(whole[0]).save_pretrained(tmp_path / "trained", max_shard_size="3MB")
    before = {path.name: sha256(path) for path in (tmp_path / "base").iterdir()}
    merge(tmp_path / "base", tmp_path / "trained", tmp_path / "merged")
    names = {path.name for path in (tmp_path / "merged").glob("*.safetensors")}
    assert names == {name for name in before if name.endswith(".safetensors")}
    assert len(names) > 1 and names != {path.name for path in (tmp_path / "trained").glob("*.safetensors")}
    expected, actual = weights(whole[1]), weights(tmp_path / "merged")
    assert expected.keys() == actual.keys()
    assert all(torch.equal(actual[name], weight) for name, weight in expected.items())
    assert before == {path.name: sha256(path) for path in (tmp_path / "base").iterdir()}  # none written in place


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.update({EMBEDDING: tensors[EMBEDDING][:-1].clone()}),
         r"model.embed_tokens.weight has shape \(1023, 256\), expected \(1024, 256\)"),
        (lambda tensors: tensors.pop("model.norm.weight"), "it has no model.norm.weight"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "has no place for extra"),
    ],
)  # fmt: skip
def test_a_whole_model_of_another_base_is_refused(base, whole, tmp_path, change, reason):
    with pytest.raises(UserError, match=f"trained on another base: .*{reason}"):
        merge(base, edited(whole[0], tmp_path / "other", change), tmp_path / "merged")


def test_an_adapter_that_lacks_a_tensor_is_refused(base, tuned, tmp_path):
    method, adapter, _ = tuned
    keys = [key for key in weights(adapter) if "layers.0.self_attn.q_proj" in key]
    assert len(keys) == (3 if method == "dora" else 2)
    for key in keys:
        broken = edited(adapter, tmp_path / key, lambda tensors, key=key: tensors.pop(key))
        with pytest.raises(UserError, match="trained on another base"):
            merge(base, broken, tmp_path / f"{key} merged")


def test_an_adapter_of_another_shape_is_refused(base, tuned, tmp_path):
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    narrow = {key: weights(tuned[1])[key][:, :-1].clone()}
    other = edited(tuned[1], tmp_path / "other", lambda tensors: tensors.update(narrow))
    with pytest.raises(UserError, match=r"another base: .*q_proj.lora_A.weight has shape \(4, 255\)"):
        merge(base, other, tmp_path / "merged")


def test_what_is_taken_for_pefts_default_is_its_default():
    from peft import LoraConfig

    known = merging.COMPUTED | merging.HARMLESS
    assert {key: value for key, value in LoraConfig().to_dict().items() if value and key not in known} == merging.PLAIN


@pytest.mark.parametrize(
    "setting",
    [
        {"alpha_pattern": {"q_proj": 32}},
        {"rank_pattern": {"q_proj": 2}},
        {"bias": "all"},
        {"lora_bias": True},
        {"fan_in_fan_out": True},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "pissa"},
        {"peft_type": "LOHA"},
        {"use_something_new": True},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_a_setting_that_is_not_known_is_refused(base, tuned, tmp_path, setting):
    other = shutil.copytree(tuned[1], tmp_path / "other")
    write_json(other / "adapter_config.json", read_json(other / "adapter_config.json") | setting)
    with pytest.raises(UserError, match=f"{next(iter(setting))} is .*, expected a plain LoRA, rsLoRA or DoRA"):
        merge(base, other, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_the_size_of_a_band_changes_nothing(base, tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "BAND", 3 * 256)  # three rows, of which some are trained
    merge(base, tuned[1], tmp_path / "merged")
    actual, expected = weights(tmp_path / "merged"), weights(tuned[2])
    assert all(units_apart(actual[name], expected[name]) <= 1 for name in expected)


def test_the_base_must_be_the_one_trained_on(base, adapter, tmp_path):
    """Another base of the same shapes: one weight of it is another."""
    other = edited(base, tmp_path / "other", lambda tensors: tensors["model.norm.weight"].view(-1)[0].add_(1))
    with pytest.raises(UserError, match=r"trained on another base: .*base.json has sha256 .*, .*other has"):
        merge(other, adapter, tmp_path / "merged")


def test_a_disk_without_room_is_said_before_anything_is_written(base, adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"the merged model takes 0.00 GB, 0.00 GB are free; make room"):
        merge(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_disk_that_fills_up_leaves_nothing_half_written(base, adapter, tmp_path):
    """The stage as a process of its own, whose files may not grow beyond 100,000 bytes."""
    code = "import sys; from pathlib import Path; from stages import merge; "
    code += "from stages.lib.core import stage; stage.run(merge.main, paths=tuple(map(Path, sys.argv[1:])))"
    command = [sys.executable, "-c", code, str(base), str(adapter), str(tmp_path / "merged")]
    limits = (resource.RLIMIT_FSIZE, (100_000, 100_000))
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, preexec_fn=lambda: resource.setrlimit(*limits)
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"File too large: '{tmp_path / 'merged'}'; nothing half-written was kept" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_weights_is_refused(base, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no weights there; make them with `dvc repro`"):
        merge(base, tmp_path / "empty", tmp_path / "merged")
