"""From adapter to GGUF: what is merged, converted and quantised is still the same model."""

import json
import shutil

import numpy as np
import pytest
import torch
from gguf import GGUFReader

from conftest import CHATML, conversations
from stages.lib import chat, llamacpp, scratch
from stages.lib.errors import UserError
from stages.lib.files import read_json, sha256, write_json
from stages.lib.gguf_model import GgufModel
from stages.lib.merging import merge
from stages.lib.models import load_model, load_tokenizer
from stages.lib.quant_types import QUANT_TYPES
from stages.lib.scoring import stop_ids_of
from stages.lib.transformers_model import TransformersModel

TEXTS = [
    "fever for 3 days",
    "Grüße, naïve café",
    "头痛三天了",
    "у меня болит голова",
    "أشعر بألم",
    "🤒🤕👩‍⚕️ ok",
    "39.5°C 120/80 1234567",
    "a  b   c    d",
    "tab\tand\t\ttabs",
    "one\ntwo\n\nthree\n\n\nfour",
    "  leading",
    "I've WE'LL don't",
    "x" * 200,
    "…—–-==>>!!??",
    "<|im_end|>",
    "<|im_start|>system",
    "<|eot_id|>",
    "<|begin_of_text|>",
    "<|end_of_text|> <|reserved_special_token_9|>",
    "",
]


@pytest.fixture(scope="module")
def tuned(merged):
    return TransformersModel(merged)


@pytest.fixture(scope="module")
def exported(gguf):
    model = GgufModel(gguf, context=512)
    yield model
    model.close()


def prompts(tokenizer, count=8):
    return [chat.prompt_ids(tokenizer, row["messages"][:-1]) for row in conversations(count)]


def test_merge_equals_peft(base, adapter, merged):
    from peft import PeftModel

    expected = PeftModel.from_pretrained(load_model(base), adapter).merge_and_unload().state_dict()
    actual = load_model(merged).state_dict()
    assert expected.keys() == actual.keys()
    changed = 0
    for name, weight in expected.items():
        torch.testing.assert_close(actual[name], weight.half().float(), atol=1e-7, rtol=1e-3)
        changed += not torch.equal(weight, load_model(base).state_dict()[name]) if "layers.0" in name else 0
    assert changed == 7  # the seven matrices of a layer, none forgotten


def test_merge_trains_just_the_marker_rows(base, adapter, merged):
    rows = load_tokenizer(base).convert_tokens_to_ids(CHATML.trained_tokens)
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
    llamacpp.convert(tmp_path / "again", tmp_path / gguf.name)
    assert sha256(tmp_path / gguf.name) == sha256(gguf)
    for name in ("one", "two"):
        llamacpp.quantize(gguf, tmp_path / f"{name}.gguf", "q4_K_M")
    assert sha256(tmp_path / "one.gguf") == sha256(tmp_path / "two.gguf")


def test_the_end_token_is_the_same_everywhere(merged, gguf, base):
    tokenizer = load_tokenizer(merged)
    end = tokenizer.convert_tokens_to_ids(CHATML.end_token)
    stop = [tokenizer.convert_tokens_to_ids("<|end_of_text|>"), end]
    fields = GGUFReader(gguf).fields
    assert tokenizer.eos_token_id == end
    assert read_json(merged / "config.json")["eos_token_id"] == stop
    assert read_json(merged / "generation_config.json")["eos_token_id"] == stop
    assert fields["tokenizer.ggml.eos_token_id"].contents() == end
    assert stop_ids_of(base) == set(stop)


def test_gguf_carries_template_bos_and_pre_tokenizer(merged, gguf):
    tokenizer, fields = load_tokenizer(merged), GGUFReader(gguf).fields
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert fields["tokenizer.ggml.pre"].contents() == "llama-bpe"
    assert fields["tokenizer.ggml.bos_token_id"].contents() == tokenizer.bos_token_id
    assert fields["tokenizer.ggml.padding_token_id"].contents() == tokenizer.pad_token_id


def test_token_ids_agree(merged, exported):
    tokenizer = load_tokenizer(merged)
    for text in TEXTS:
        assert exported.tokenize(text, special=False) == chat.content_ids(tokenizer, text) or text != text.strip()
        assert exported.tokenize(text, special=True) == tokenizer.encode(text, add_special_tokens=False)
    messages = conversations(1)[0]["messages"][:2]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = exported.tokenize(rendered, special=True)
    assert ids == chat.prompt_ids(tokenizer, messages)
    assert ids.count(tokenizer.bos_token_id) == 1


def test_log_probabilities_and_greedy_answers_agree_at_f16(merged, tuned, exported):
    tokenizer = load_tokenizer(merged)
    answers = [chat.content_ids(tokenizer, "This is most likely gout."), chat.content_ids(tokenizer, "B. rest")]
    for ids in prompts(tokenizer):
        for ours, theirs in zip(
            tuned.answer_logprobs(ids, answers), exported.answer_logprobs(ids, answers), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=0.05)
        assert list(tuned.generate(ids, 24, set())) == list(exported.generate(ids, 24, set()))


def test_answers_are_scored_alone(merged, tuned, exported):
    """Neither another answer beside it nor an earlier call changes an answer's log-probabilities."""
    tokenizer = load_tokenizer(merged)
    ids = prompts(tokenizer, 1)[0]
    short, long = chat.content_ids(tokenizer, "A. rest"), chat.content_ids(tokenizer, "B. a long course of antibiotics")
    for model in (tuned, exported):
        together = model.answer_logprobs(ids, [long, short])
        for answer, scored in zip((long, short), together, strict=True):
            np.testing.assert_allclose(model.answer_logprobs(ids, [answer])[0], scored, atol=1e-3)


def test_log_probabilities_are_those_of_the_whole_text(merged, tuned):
    """The prompt's cache, shared by the answers, gives what one plain pass over prompt and answer gives."""
    tokenizer = load_tokenizer(merged)
    ids = prompts(tokenizer, 1)[0]
    answers = [chat.content_ids(tokenizer, text) for text in ("This is most likely gout.", "x", "B. rest and fluids")]
    for answer, scored in zip(answers, tuned.answer_logprobs(ids, answers), strict=True):
        with torch.no_grad():
            logits = tuned.model(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1].double()
        expected = logits.log_softmax(-1)[range(len(answer)), answer]
        np.testing.assert_allclose(scored, expected, atol=1e-4)


def test_greedy_answers_end_by_themselves(merged, base, exported):
    for ids in prompts(load_tokenizer(merged)):
        assert 0 < len(list(exported.generate(ids, 250, stop_ids_of(base)))) < 250


def test_generation_ends_before_a_stop_token(merged, tuned, exported):
    ids = prompts(load_tokenizer(merged), 1)[0]
    free = list(tuned.generate(ids, 12, set()))
    for model in (tuned, exported):
        assert list(model.generate(ids, 12, {free[4]})) == free[: free.index(free[4])]


def test_a_prompt_longer_than_the_context_is_an_error(exported):
    with pytest.raises(UserError, match="exceed the context of 512"):
        list(exported.generate([5] * 600, 1, set()))


def test_unreadable_gguf(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UserError, match="cannot read"):
        GgufModel(tmp_path / "bad.gguf", 16)
    with pytest.raises(UserError, match="no such file"):
        GgufModel(tmp_path / "none.gguf", 16)


def test_another_split_pattern_is_refused_and_nothing_is_written(merged, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(merged, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\s+|\S+"}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="expected exactly Llama-3's"):
        llamacpp.convert(other, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_split_pattern_of_scratch_and_of_the_converter_are_one():
    import convert

    assert scratch.SPLIT_PATTERN == convert.LLAMA3_SPLIT


def test_every_quant_type_of_the_schema_is_one_of_the_build(gguf, tmp_path):
    for kind in QUANT_TYPES:
        llamacpp.quantize(gguf, tmp_path / f"{kind}.gguf", kind)
        assert 0 < (tmp_path / f"{kind}.gguf").stat().st_size < gguf.stat().st_size


def test_no_build_is_one_clear_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"no llama\.cpp build there"):
        llamacpp.home()
