"""From adapter to GGUF: what is merged and converted is still the same model."""

import logging
import shutil

import numpy as np
import pytest
from gguf import GGUFReader

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, sha256, write_json
from stages.lib.evaluation.engines.gguf_model import GgufModel
from stages.lib.evaluation.predict.examples import stop_ids_of
from stages.lib.export import adapter_gguf, llamacpp
from stages.lib.export.merging import merge
from stages.lib.model import chat
from stages.lib.model.loading import load_model, load_tokenizer, trained_token_ids
from support.sample import conversations

EVERY_KIND = True


def test_merge_trains_just_the_marker_rows(base, adapter, merged):
    rows = trained_token_ids(base)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        before, after = load_model(base).state_dict()[name], load_model(merged).state_dict()[name]
        assert before.shape == after.shape  # PITFALL: ChatML grows no vocabulary
        moved = (before.half() != after.half()).any(dim=1).nonzero().flatten().tolist()
        assert moved == sorted(rows)


def test_merge_refuses_a_quantised_base_and_a_foreign_adapter(base, adapter, tmp_path):
    quantised = tmp_path / "quantised"
    shutil.copytree(base, quantised)
    write_json(quantised / "config.json", read_json(base / "config.json") | {"quantization_config": {"bits": 4}})
    with pytest.raises(UserError, match="quantised"):
        merge(quantised, adapter, tmp_path / "a")
    foreign = tmp_path / "foreign"
    shutil.copytree(adapter, foreign)
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {key.replace("layers.1", "layers.9"): value for key, value in weights.items()},
        foreign / "adapter_model.safetensors",
    )
    with pytest.raises(UserError, match="another base"):
        merge(base, foreign, tmp_path / "b")


def test_the_same_adapter_gives_the_same_bytes(base, adapter, merged, gguf, tmp_path):
    merge(base, adapter, tmp_path / "again")
    assert sha256(tmp_path / "again/model.safetensors") == sha256(merged / "model.safetensors")
    llamacpp.convert(tmp_path / "again", tmp_path / gguf.name, {})
    assert sha256(tmp_path / gguf.name) == sha256(gguf)
    for name in ("one", "two"):
        llamacpp.quantize(gguf, tmp_path / f"{name}.gguf", "q4_K_M", {})
    assert sha256(tmp_path / "one.gguf") == sha256(tmp_path / "two.gguf")


def test_the_adapter_alone_over_the_base_is_the_merged_model(base, adapter, gguf, kind, tmp_path, caplog):
    """Also its trained token rows: a prompt is full of the markers that they are. Tied ones have no such file."""
    caplog.set_level(logging.INFO)
    llamacpp.convert(base, tmp_path / "base.gguf", {})
    adapter_gguf.convert_adapter(base, adapter, "lora", tmp_path / "lora.gguf", {"chatdoctor.notice": "test"})
    if kind.tied:
        assert (tmp_path / "lora.gguf").stat().st_size == 0
        assert "trained token rows of tied embeddings cannot be laid over a base" in caplog.text
        return
    assert GGUFReader(tmp_path / "lora.gguf").fields["chatdoctor.notice"].contents() == "test"
    model = GgufModel(tmp_path / "base.gguf", context=512)
    ids = chat.prompt_ids(load_tokenizer(base), conversations(1)[0]["messages"][:-1])
    before = model.logits(ids)
    model.close()
    model = GgufModel(tmp_path / "base.gguf", context=512, adapter=tmp_path / "lora.gguf")
    after = model.logits(ids)
    model.close()
    merged = GgufModel(gguf, context=512).logits(ids)
    assert np.abs(before - merged).max() > 0.5
    np.testing.assert_allclose(after, merged, atol=0.05)


@pytest.mark.parametrize("method", ["dora", "full"])
def test_what_no_adapter_can_say_is_an_empty_file(base, adapter, method, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    adapter_gguf.convert_adapter(base, adapter, method, tmp_path / "lora.gguf", {})
    assert (tmp_path / "lora.gguf").stat().st_size == 0 and "stays empty" in caplog.text


def test_the_end_token_is_the_same_everywhere(merged, gguf, base):
    tokenizer = load_tokenizer(merged)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    stop = [tokenizer.convert_tokens_to_ids("<|end_of_text|>"), end]
    fields = GGUFReader(gguf).fields
    assert tokenizer.eos_token_id == end
    assert read_json(merged / "config.json")["eos_token_id"] == stop
    assert read_json(merged / "generation_config.json")["eos_token_id"] == stop
    assert fields["tokenizer.ggml.eos_token_id"].contents() == end
    assert stop_ids_of(base) == set(stop)


def test_gguf_carries_template_bos_and_pre_tokenizer(merged, gguf, kind):
    tokenizer, fields = load_tokenizer(merged), GGUFReader(gguf).fields
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert fields["tokenizer.ggml.pre"].contents() == "llama-bpe"
    assert fields["tokenizer.ggml.add_bos_token"].contents() == kind.bos
    assert tokenizer.chat_template.startswith("{{ bos_token }}") == kind.bos
    assert fields["tokenizer.ggml.bos_token_id"].contents() == tokenizer.bos_token_id
    assert fields["tokenizer.ggml.padding_token_id"].contents() == tokenizer.pad_token_id
