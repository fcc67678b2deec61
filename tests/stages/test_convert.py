"""From adapter to GGUF: what is merged, converted and quantised is still the same model."""

import ctypes
import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from gguf import GGUFReader

from conftest import CHATML, ROOT, conversations
from stages import imatrix, quantize
from stages.lib import adapter_gguf, batches, chat, golden, llamacpp, paths, scratch
from stages.lib.errors import UserError
from stages.lib.files import read_json, sha256, write_json
from stages.lib.gguf_model import GgufModel
from stages.lib.merging import merge
from stages.lib.models import load_model, load_tokenizer
from stages.lib.quant_types import QUANT_TYPES
from stages.lib.scoring import open_model, stop_ids_of
from stages.lib.transformers_model import TransformersModel

# Make a file as it should be, then again on a disk that has 8 kB less than it takes.
ON_A_FULL_DISK = """
import subprocess, sys
from pathlib import Path
from stages.lib import llamacpp
from stages.lib.errors import UserError
merged, gguf, whole, target = map(Path, sys.argv[2:])
make = eval("lambda target: llamacpp." + sys.argv[1])
make(whole)
size = whole.stat().st_size - 8192
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", target.parent], check=True)
target.write_text("before")
try:
    make(target)
except UserError as error:
    print(error)
print(*[path.name for path in target.parent.iterdir()], target.read_text())
"""


@pytest.fixture(scope="module")
def tuned(merged):
    return TransformersModel(merged)


@pytest.fixture(scope="module")
def exported(gguf):
    model = GgufModel(gguf, context=512, rows=16)
    yield model
    model.close()


def prompts(tokenizer, count=8):
    return [chat.prompt_ids(tokenizer, row["messages"][:-1]) for row in conversations(count)]


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
    llamacpp.convert(tmp_path / "again", tmp_path / gguf.name, {})
    assert sha256(tmp_path / gguf.name) == sha256(gguf)
    for name in ("one", "two"):
        llamacpp.quantize(gguf, tmp_path / f"{name}.gguf", "q4_K_M")
    assert sha256(tmp_path / "one.gguf") == sha256(tmp_path / "two.gguf")


def test_the_adapter_alone_over_the_base_is_the_merged_model(base, adapter, exported, tmp_path):
    """Also its trained rows of the vocabulary: a prompt is full of the markers that they are."""
    llamacpp.convert(base, tmp_path / "base.gguf", {})
    adapter_gguf.convert_adapter(base, adapter, "lora", tmp_path / "lora.gguf", {"chatdoctor.notice": "test"})
    assert GGUFReader(tmp_path / "lora.gguf").fields["chatdoctor.notice"].contents() == "test"
    model = GgufModel(tmp_path / "base.gguf", context=512)
    ids = prompts(load_tokenizer(base), 1)[0]
    before = model.logits(ids)
    loaded = model.c.llama_adapter_lora_init(model.model, str(tmp_path / "lora.gguf").encode())
    assert loaded
    adapters, scales = (type(loaded) * 1)(loaded), (ctypes.c_float * 1)(1.0)
    assert model.c.llama_set_adapters_lora(model.context_pointer, adapters, 1, scales) == 0
    after, merged = model.logits(ids), exported.logits(ids)
    assert np.abs(before - merged).max() > 0.5
    np.testing.assert_allclose(after, merged, atol=0.05)
    model.close()


@pytest.mark.parametrize("method", ["dora", "full"])
def test_what_no_adapter_can_say_is_an_empty_file(base, adapter, method, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    adapter_gguf.convert_adapter(base, adapter, method, tmp_path / "lora.gguf", {})
    assert (tmp_path / "lora.gguf").stat().st_size == 0 and "stays empty" in caplog.text


def test_an_importance_matrix_is_the_same_twice_and_names_no_path(prepared, base, gguf, tmp_path):
    for name in ("one", "two"):
        imatrix.main(True, 4, prepared, base, gguf, tmp_path / name / "imatrix.gguf")
        target = tmp_path / name / "weighed.gguf"
        llamacpp.quantize(gguf, target, "q4_K_M", tmp_path / name / "imatrix.gguf")
    for file in ("imatrix.gguf", "weighed.gguf"):
        assert sha256(tmp_path / "one" / file) == sha256(tmp_path / "two" / file)
    fields = GGUFReader(tmp_path / "one/weighed.gguf").fields
    assert fields["quantize.imatrix.file"].contents() == "imatrix.gguf"
    assert fields["quantize.imatrix.dataset"].contents() == "train.txt"
    llamacpp.quantize(gguf, tmp_path / "plain.gguf", "q4_K_M")
    assert sha256(tmp_path / "plain.gguf") != sha256(tmp_path / "one/weighed.gguf")


@pytest.mark.parametrize(
    "tool",
    ["convert(merged, target, {})", "quantize(gguf, target, 'q4_K_M')", "imatrix(gguf, 'a word ' * 3000, target, 4)"],
)
def test_a_full_disk_is_said_and_keeps_what_was_there(tool, merged, gguf, tmp_path):
    """llama-imatrix, for one, ends well there, with half a file."""
    alone = ["unshare", "--mount", "--map-root-user"]  # may mount, and nobody else sees it
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this system lets no user mount a disk of his own")
    (tmp_path / "small").mkdir()
    given = [tool, merged, gguf, tmp_path / "whole.gguf", tmp_path / "small/made.gguf"]
    command = [*alone, sys.executable, "-c", ON_A_FULL_DISK, *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said, left = done.stdout.splitlines()
    assert said.endswith(f"failed: the disk of {tmp_path / 'small'} is full; make room and run the same command")
    assert left == "made.gguf before"


def test_no_importance_matrix_is_an_empty_file(prepared, base, gguf, tmp_path):
    imatrix.main(False, 4, prepared, base, gguf, tmp_path / "imatrix.gguf")
    quantize.main(gguf, tmp_path / "imatrix.gguf", tmp_path, "q4_K_M")
    llamacpp.quantize(gguf, tmp_path / "plain.gguf", "q4_K_M")
    assert sha256(tmp_path / paths.gguf("q4_K_M").name) == sha256(tmp_path / "plain.gguf")


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
    control = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    for text in golden.strings(control):
        assert exported.tokenize(text, special=False) == chat.content_ids(tokenizer, text) or text != text.strip()
        assert exported.tokenize(text, special=True) == tokenizer.encode(text, add_special_tokens=False)
    messages = conversations(1)[0]["messages"][:2]
    ids = exported.tokenize(chat.rendered(tokenizer, messages, answering=True), special=True)
    assert ids == chat.prompt_ids(tokenizer, messages)
    assert ids.count(tokenizer.bos_token_id) == 1


def greedy(model, prompts, max_new_tokens, stop=frozenset()):
    return batches.greedy(model, prompts, max_new_tokens, set(stop), "test")


def test_log_probabilities_and_greedy_answers_agree_at_f16(merged, tuned, exported):
    tokenizer = load_tokenizer(merged)
    asked = prompts(tokenizer)
    answers = [[chat.content_ids(tokenizer, text) for text in ("This is most likely gout.", "B. rest")]] * len(asked)
    for ours, theirs in zip(
        *(batches.answer_logprobs(m, asked, answers, "test") for m in (tuned, exported)), strict=True
    ):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=0.05)
    assert greedy(tuned, asked, 24) == greedy(exported, asked, 24)


def test_a_text_is_read_as_if_it_were_alone(merged, tuned, exported):
    """Neither its neighbours in a batch, nor another answer beside it, nor an earlier call changes what comes out."""
    tokenizer = load_tokenizer(merged)
    asked = [ids[: len(ids) - 3 * i] for i, ids in enumerate(prompts(tokenizer, 5))]
    texts = ["A. rest", "B. a long course of antibiotics", "C", "This is most likely gout."]
    answers = [[chat.content_ids(tokenizer, text) for text in texts[: 1 + i % 4]] for i in range(len(asked))]
    for model in (tuned, exported):
        together = model.answer_logprobs(asked, answers)
        for ids, some, scored in zip(asked, answers, together, strict=True):
            for answer, found in zip(some, scored, strict=True):
                ((alone,),) = model.answer_logprobs([ids], [[answer]])
                np.testing.assert_allclose(alone, found, atol=1e-3)
        stop = set(greedy(model, asked, 9)[0][4:5])  # some end early, the others go on
        alone = [greedy(model, [ids], 12, stop)[0] for ids in asked]
        assert greedy(model, asked, 12, stop) == alone and len(set(map(len, alone))) > 1


def test_log_probabilities_are_those_of_the_whole_text(merged, tuned):
    """The prompt's cache, shared by the answers, gives what one plain pass over prompt and answer gives."""
    tokenizer = load_tokenizer(merged)
    ids = prompts(tokenizer, 1)[0]
    answers = [chat.content_ids(tokenizer, text) for text in ("This is most likely gout.", "x", "B. rest and fluids")]
    for answer, scored in zip(answers, tuned.answer_logprobs([ids], [answers])[0], strict=True):
        with torch.no_grad():
            logits = tuned.model(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1].double()
        expected = logits.log_softmax(-1)[range(len(answer)), answer]
        np.testing.assert_allclose(scored, expected, atol=1e-4)


def test_greedy_answers_end_by_themselves(merged, base, exported):
    answers = greedy(exported, prompts(load_tokenizer(merged)), 250, stop_ids_of(base))
    assert all(0 < len(answer) < 250 for answer in answers)


def test_generation_ends_before_a_stop_token(merged, tuned, exported):
    asked = prompts(load_tokenizer(merged), 1)
    (free,) = greedy(tuned, asked, 12)
    for model in (tuned, exported):
        assert greedy(model, asked, 12, {free[4]}) == [free[: free.index(free[4])]]


def test_a_prompt_longer_than_the_context_is_an_error(exported):
    with pytest.raises(UserError, match="exceed the context of 512"):
        greedy(exported, [[5] * 600], 1)


def test_a_model_of_another_vocabulary_or_with_broken_weights_is_refused(base, merged, gguf, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(merged, other)
    tokenizer = read_json(other / "tokenizer.json")
    words = tokenizer["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]  # as many words, two of them in each other's place
    write_json(other / "tokenizer.json", tokenizer)
    llamacpp.convert(other, tmp_path / "other.gguf", {})
    for path in (other, tmp_path / "other.gguf"):
        with pytest.raises(UserError, match="cannot be asked the same token ids"):
            open_model(path, base, 512)
    for path in (merged, gguf):
        open_model(path, base, 512)
    model = TransformersModel(merged)
    with torch.no_grad():
        model.model.model.norm.weight[0] = float("nan")
    asked = prompts(load_tokenizer(merged), 3)
    with pytest.raises(UserError, match="of 3 of 3 texts are NaN or infinite"):
        batches.answer_logprobs(model, asked, [[[5]]] * 3, "test")


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
        llamacpp.convert(other, tmp_path / "model.gguf", {})
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
