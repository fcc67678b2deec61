"""The base: from wherever it comes, a Llama with a template; or nothing at all. From scratch, of Llama-3's layout."""

from dataclasses import replace

import pytest

from stages import base as stage
from stages.lib.base import pinning, scratch
from stages.lib.base.scratch import from_scratch
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, sha256, write_json
from stages.lib.export import llamacpp
from stages.lib.model.loading import load_model, load_tokenizer
from stages.lib.settings.model import Folder, Gguf, Hub, Model
from support.disk import no_file_beyond
from support.hub import COMMIT, serving, take_for_the_hub
from support.pretrained import LLAMA3_ROPE, SMOLLM, llama
from support.settings import CHATML, LLAMA3, SHAPE


def model(**place) -> Model:
    nowhere = dict.fromkeys(("path", "hub", "folder", "gguf", "scratch"))
    return Model(**{"name": "small", "licence": "mit"} | nowhere | place)


@pytest.fixture
def make(prepared, tmp_path):
    """Run the stage; the folder of the base and its metrics."""

    def run(model, template=CHATML):
        folder, metrics = tmp_path / "models/base", tmp_path / "base.json"
        stage.main(model, template, 1, prepared, folder, metrics)
        return folder, read_json(metrics)

    return run


def from_hub(folder, tmp_path):
    return {"hub": Hub("house/llama", COMMIT)}


def from_folder(folder, tmp_path):
    return {"folder": Folder(str(folder), pinning.pin_of(folder, tmp_path / "hashes.json"))}


def from_file(folder, tmp_path):
    file = tmp_path / "llama.gguf"
    llamacpp.convert(folder, file, {})
    return {"gguf": Gguf(str(file), "", "", "", sha256(file))}


@pytest.mark.parametrize("place", [from_hub, from_folder, from_file])
def test_a_base_is_the_same_model_wherever_it_comes_from(make, tmp_path, monkeypatch, place):
    published = llama(tmp_path / "published", SMOLLM, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True)
    with serving() as server:
        server.models["house/llama"] = {path.name: path.read_bytes() for path in published.iterdir()}
        take_for_the_hub(server.address, tmp_path, monkeypatch)
        folder, metrics = make(model(**place(published, tmp_path)))
    expected = load_model(published).state_dict()
    assert all((weight == expected[name]).all() for name, weight in load_model(folder).state_dict().items())
    assert load_tokenizer(folder).chat_template == CHATML.chat_template
    assert metrics == {
        "parameters": sum(weight.numel() for name, weight in expected.items() if name != "lm_head.weight"),
        "layers": 2,
        "hidden_size": 64,
        "vocabulary": 600,
        "tied_embeddings": True,
        "rope_type": "llama3",
        "bos": None,
        "eos": "<|im_end|>",
        "trained_tokens": [],
        "dequantised_from": None,
    }


def test_a_base_from_scratch_is_of_llama3s_shape(make):
    folder, metrics = make(model(scratch=replace(SHAPE, num_train_steps=1)))
    config = load_model(folder).config
    assert config.architectures == ["LlamaForCausalLM"]
    assert config.rope_parameters["rope_theta"] == 500000.0
    assert config.num_key_value_heads < config.num_attention_heads
    assert config.vocab_size == len(load_tokenizer(folder)) == metrics["vocabulary"] == SHAPE.vocab_size
    assert (metrics["tied_embeddings"], metrics["bos"]) == (False, "<|begin_of_text|>")
    assert metrics["trained_tokens"] == CHATML.markers


def changed(folder):
    write_json(folder / "config.json", read_json(folder / "config.json") | {"rms_norm_eps": 1e-6})


@pytest.mark.parametrize(
    ("spoil", "template", "message"),
    [(changed, CHATML, "it was changed since"), (lambda folder: None, LLAMA3, "template.llama3 needs")],
)
def test_what_is_refused_leaves_the_base_as_it_was(make, tmp_path, spoil, template, message):
    """Also where it shows only when files were copied already."""
    published = llama(tmp_path / "published", SMOLLM)
    place = from_folder(published, tmp_path)
    before = {path: path.stat().st_ino for path in make(model(**place))[0].parent.rglob("*")}
    spoil(published)
    with pytest.raises(UserError, match=message):
        make(model(**place), template)
    assert {path: path.stat().st_ino for path in (tmp_path / "models").rglob("*")} == before


@pytest.mark.parametrize("places", [{}, {"hub": Hub("house/llama", COMMIT), "scratch": SHAPE}])
def test_a_base_comes_from_one_place(places):
    with pytest.raises(UserError, match="exactly one of hub, folder, gguf, scratch"):
        model(**places)


def test_special_tokens_stand_where_llama3_has_them():
    tokens = scratch.special_tokens()
    # ids of Llama-3's tokenizer less 128000
    known = {
        0: "<|begin_of_text|>",
        1: "<|end_of_text|>",
        2: "<|reserved_special_token_0|>",
        6: "<|start_header_id|>",
        7: "<|end_header_id|>",
        8: "<|reserved_special_token_4|>",
        9: "<|eot_id|>",
        255: "<|reserved_special_token_250|>",
    }
    assert {i: tokens[i] for i in known} == known
    assert len(set(tokens)) == 256


def test_weights_that_cannot_be_written_are_an_error_that_the_stage_knows(prepared, tmp_path):
    with no_file_beyond(50_000), pytest.raises(OSError, match="base not written: "):
        from_scratch(replace(SHAPE, num_train_steps=1), prepared / "train.jsonl", tmp_path / "base", seed=1)


def test_too_little_text_for_the_vocabulary_is_an_error():
    with pytest.raises(UserError, match="yields just"):
        scratch.train_tokenizer(["a short text"], 1024)
