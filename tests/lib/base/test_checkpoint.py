"""A folder of one's own: what no later stage could use is refused in one sentence, and its hash pins what is copied."""

import os
import shutil

import pytest
from tokenizers import Tokenizer
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel

from stages.lib.base import checkpoint, local, pinning
from stages.lib.base.requirements import require_llama
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, sha256, write_json
from stages.lib.settings.model import Folder
from support.params import composed
from support.pretrained import LLAMA3_ROPE, llama


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("published") / "llama", shard="200KB", rope_parameters=LLAMA3_ROPE)


@pytest.fixture
def folder(published, tmp_path):
    """A folder of one's own whose name no shell likes."""
    copied = tmp_path / "mein größtes Modell"
    shutil.copytree(published, copied)
    return copied


def pinned(folder) -> Folder:
    return Folder(str(folder), pinning.pin_of(folder, folder.parent / "hashes.json"))


def test_the_weights_config_tokenizer_and_licence_are_copied_and_nothing_else(folder, tmp_path):
    for name in ("LICENSE", "chat_template.jinja", "optimizer.pt", "README.md", "training_args.bin"):
        (folder / name).write_text("text")
    (folder / "checkpoint-1").mkdir()
    local.take_over(pinned(folder), tmp_path / "base")
    names = {path.name for path in (tmp_path / "base").iterdir()}
    left = {path.name for path in folder.iterdir()} - names
    assert left == {"optimizer.pt", "README.md", "training_args.bin", "checkpoint-1"}
    assert all((tmp_path / "base" / name).read_bytes() == (folder / name).read_bytes() for name in names)
    assert not any((tmp_path / "base" / name).samefile(folder / name) for name in names)


def test_a_path_is_one_of_the_top_folder_or_of_the_home(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for number, name in enumerate((folder.name, f"~/{folder.name}")):
        local.take_over(Folder(name, pinned(folder).sha256), tmp_path / f"base{number}")


def config(**changes):
    return lambda folder: write_json(folder / "config.json", read_json(folder / "config.json") | changes)


def removed(name):
    return lambda folder: (folder / name).unlink()


def tokenizer(change):
    def spoil(folder):
        changed = Tokenizer.from_file(str(folder / "tokenizer.json"))
        change(changed)
        changed.save(str(folder / "tokenizer.json"))

    return spoil


def only_pickled(folder):
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickled")


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (removed("config.json"), "config.json: no such file"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json:1: not valid JSON"),
        (config(hidden_size="wide"), "not a Llama's config"),
        (config(model_type="mistral", architectures=["MistralForCausalLM"]), "model_type is 'mistral'"),
        (config(quantization_config={"quant_method": "gptq", "bits": 4}), "quantised (gptq)"),
        (config(rope_parameters=YARN), "rope type is 'yarn'"),
        (config(num_hidden_layers=3), "model.layers.2.self_attn.q_proj.weight is missing"),
        (config(num_key_value_heads=4), "k_proj.weight is (32, 64), expected (64, 64)"),
        (config(tie_word_embeddings=True), "its config has no place for lm_head.weight"),
        (
            lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"),
            "an adapter, expected",
        ),
        (only_pickled, "only pickled weights there (pytorch_model.bin)"),
        (removed("model-00002-of-00002.safetensors"), "model-00002-of-00002.safetensors: no such file"),
        (removed("tokenizer.json"), "tokenizer.json: no such file"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json: not a tokenizer"),
        (tokenizer(lambda one: setattr(one, "pre_tokenizer", ByteLevel())), "splits text as neither llama-bpe nor"),
        (tokenizer(lambda one: setattr(one, "normalizer", NFC())), "splits text as neither llama-bpe nor smollm"),
        (tokenizer(lambda one: setattr(one.model, "ignore_merges", False)), "splits text as neither llama-bpe nor"),
        (tokenizer(lambda one: one.add_special_tokens(["more"])), "601 tokens, but the model has rows for 600"),
    ],
)
def test_what_no_later_stage_could_use_is_refused(folder, tmp_path, spoil, message):
    spoil(folder)
    with pytest.raises(UserError) as error:
        local.take_over(pinned(folder), tmp_path / "base")
    assert message in str(error.value) and folder.name in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "model.path is not set; name it with `dvc exp run -S model=local"),
        ("absent", "absent: no such folder; name it with `dvc exp run -S model=local"),
        ("mein größtes Modell/config.json", "is a file, expected a folder"),
    ],
)
def test_a_path_that_names_no_folder_is_refused(folder, tmp_path, monkeypatch, path, message):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(UserError) as error:
        local.take_over(Folder(path, ""), tmp_path / "base")
    assert message in str(error.value)


@pytest.mark.parametrize("changes", [{"tie_word_embeddings": True}, {"rope_parameters": LLAMA3_ROPE}])
def test_tied_embeddings_and_llama3s_rope_are_a_llama(tmp_path, changes):
    require_llama(llama(tmp_path / "llama", **changes))


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that were hashed for a pin."""
    names = []
    monkeypatch.setattr(pinning, "sha256", lambda path: names.append(path.name) or sha256(path))
    return names


def test_a_pin_is_not_computed_again_while_sizes_and_times_stand(folder, tmp_path, hashed):
    known = tmp_path / "hashes.json"
    pin = pinning.pin_of(folder, known)
    assert pin == checkpoint.digest_of(checkpoint.files_of(folder))
    assert sorted(hashed) == sorted(path.name for path in checkpoint.files_of(folder))
    hashed.clear()
    assert pinning.pin_of(folder, known) == pin and not hashed
    os.utime(folder / "config.json", ns=(1, 1))
    assert pinning.pin_of(folder, known) == pin and hashed == ["config.json"]
    with (folder / "config.json").open("a") as file:
        file.write(" ")
    os.utime(folder / "config.json", ns=(1, 1))
    assert pinning.pin_of(folder, known) != pin and hashed == ["config.json"] * 2


def test_a_pin_is_of_names_and_bytes_and_not_of_the_place(folder, published, tmp_path):
    assert pinned(folder).sha256 == pinned(published).sha256
    (folder / "generation_config.json").rename(folder / "other.json")
    assert pinned(folder).sha256 != pinned(published).sha256
    assert pinning.pin_of(published / "config.json", tmp_path / "known") == sha256(published / "config.json")


def test_the_configuration_has_the_pin_of_the_folder_that_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pinning, "write_json", lambda *_: None)  # the checkout's own memory of hashes
    config = composed(tmp_path, "model=local", f"model.path='{folder}'")
    assert config.model.folder == pinned(folder)


def test_what_is_no_model_has_no_pin(tmp_path):
    assert pinning.pin_of(tmp_path / "absent", tmp_path / "known") == pinning.pin_of(tmp_path, tmp_path / "known") == ""


def test_a_folder_that_changed_since_its_pin_is_refused(folder, tmp_path):
    before = pinned(folder)
    config(rms_norm_eps=1e-6)(folder)
    with pytest.raises(UserError, match="it was changed since") as error:
        local.take_over(before, tmp_path / "base")
    assert before.sha256 in str(error.value) and pinned(folder).sha256 in str(error.value)
