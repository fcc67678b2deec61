"""From adapter to GGUF: what is merged, converted and quantised is still the same model."""

import json
import logging
import shutil
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest
from gguf import GGUFReader

from stages import imatrix, quantize
from stages.lib.base import byte_level
from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, sha256, write_json
from stages.lib.evaluation.engines.gguf_model import GgufModel
from stages.lib.evaluation.predict.examples import stop_ids_of
from stages.lib.export import adapter_gguf, llamacpp
from stages.lib.export.merging import merge
from stages.lib.model import chat
from stages.lib.model.loading import load_model, load_tokenizer, trained_token_ids
from stages.lib.settings.export import MATRICES, QUANT_TYPES, TENSOR_TYPES
from support.sample import conversations
from support.settings import ROOT

EVERY_KIND = True
# Make a file as it should be, then again on a disk that has 8 kB less than it takes.
ON_A_FULL_DISK = """
import subprocess, sys
from pathlib import Path
from stages.lib.export import llamacpp
from stages.lib.core.errors import UserError
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


def test_an_importance_matrix_is_the_same_twice_and_names_no_path(prepared, base, gguf, tmp_path):
    for name in ("one", "two"):
        imatrix.main(True, 4, prepared, base, gguf, tmp_path / name / "imatrix.gguf")
        target = tmp_path / name / "weighed.gguf"
        llamacpp.quantize(gguf, target, "q4_K_M", {}, tmp_path / name / "imatrix.gguf")
    for file in ("imatrix.gguf", "weighed.gguf"):
        assert sha256(tmp_path / "one" / file) == sha256(tmp_path / "two" / file)
    fields = GGUFReader(tmp_path / "one/weighed.gguf").fields
    assert fields["quantize.imatrix.file"].contents() == "imatrix.gguf"
    assert fields["quantize.imatrix.dataset"].contents() == "train.txt"
    llamacpp.quantize(gguf, tmp_path / "plain.gguf", "q4_K_M", {})
    assert sha256(tmp_path / "plain.gguf") != sha256(tmp_path / "one/weighed.gguf")


@pytest.mark.parametrize(
    "tool",
    [
        "convert(merged, target, {})",
        "quantize(gguf, target, 'q4_K_M', {})",
        "imatrix(gguf, 'a word ' * 3000, target, 4)",
    ],
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
    quantize.main({}, gguf, tmp_path / "imatrix.gguf", tmp_path, "q4_K_M")
    llamacpp.quantize(gguf, tmp_path / "plain.gguf", "q4_K_M", {})
    assert sha256(tmp_path / paths.gguf("q4_K_M").name) == sha256(tmp_path / "plain.gguf")


def test_named_matrices_get_a_type_of_their_own(base, prepared, gguf, tmp_path):
    imatrix.main(False, 4, prepared, base, gguf, tmp_path / "imatrix.gguf")
    quantize.main({"attn_v": "q8_0", "ffn_up": "f16"}, gguf, tmp_path / "imatrix.gguf", tmp_path, "q4_K_M")
    types = types_by_matrix(tmp_path / paths.gguf("q4_K_M").name)
    assert types["attn_v"] == {"Q8_0"} and types["ffn_up"] == {"F16"}
    assert types["attn_q"] == types["ffn_gate"] == {"Q4_K"}


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


def test_another_split_pattern_is_refused_and_nothing_is_written(merged, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(merged, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\s+|\S+"}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="exactly as Llama-3 or SmolLM does"):
        llamacpp.convert(other, tmp_path / "model.gguf", {})
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_split_pattern_of_a_base_and_of_the_converter_are_one():
    import convert

    assert byte_level.LLAMA3_SPLIT == convert.LLAMA3_SPLIT


def test_every_type_of_the_schema_is_one_of_the_build(gguf, tmp_path):
    for kind in QUANT_TYPES:
        llamacpp.quantize(gguf, tmp_path / f"{kind}.gguf", kind, {})
        assert 0 < (tmp_path / f"{kind}.gguf").stat().st_size < gguf.stat().st_size
    for kind in TENSOR_TYPES:
        llamacpp.quantize(gguf, tmp_path / "one.gguf", "q4_K_M", dict.fromkeys(MATRICES, kind))
        types = types_by_matrix(tmp_path / "one.gguf")
        assert all(types[matrix] == {kind.upper()} for matrix in MATRICES)


def types_by_matrix(file):
    """Of each kind of matrix, such as "attn_q", the types that it has in the layers of a GGUF."""
    types = defaultdict(set)
    for tensor in GGUFReader(file).tensors:
        types[tensor.name.split(".")[-2]].add(tensor.tensor_type.name)
    return types


def test_no_build_is_one_clear_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"no llama\.cpp build there"):
        llamacpp.home()
