"""A base from a GGUF is the model that the GGUF was made of: its weights, its config, its token ids."""

import shutil
from functools import partial

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from stages.lib.base import gguf_tokenizer, local
from stages.lib.base.byte_level import LLAMA3, SMOLLM
from stages.lib.base.gguf import ROPE_FACTORS, from_gguf
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, sha256
from stages.lib.core.resources import llama_cpp_build
from stages.lib.export import llamacpp
from stages.lib.model.loading import load_model, load_tokenizer
from stages.lib.model.weights import DEQUANTISED_FROM
from stages.lib.settings.model import Gguf
from support.pretrained import LLAMA3_ROPE, llama

TEXTS = [
    "The patient's 39.5 °C; dose 12345 mg,\n\n\t頭痛 since  2019 🤒",
    "<|im_start|>user\n<|begin_of_text|><|reserved_special_token_7|> DON'T <|im_end|>",
]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A model folder of each kind with the GGUF that llama.cpp makes of it, each made once."""
    made = {}

    def make(kind=LLAMA3, tied=False, rope=None):
        key = (kind, tied, rope)
        if key not in made:
            folder = tmp_path_factory.mktemp("llama")
            scaled = {"rope_parameters": LLAMA3_ROPE} if rope == "llama3" else {}
            llama(folder / "llama", kind, tie_word_embeddings=tied, **scaled)
            llamacpp.convert(folder / "llama", folder / "llama.gguf", {})
            made[key] = folder / "llama", folder / "llama.gguf"
        return made[key]

    return make


@pytest.mark.parametrize("kind", [LLAMA3, SMOLLM])
@pytest.mark.parametrize("rope", ["default", "llama3"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_gguf_gives_back_the_folder_that_it_was_made_of(converted, tmp_path, kind, tied, rope):
    folder, file = converted(kind, tied, rope)
    from_gguf(file, tmp_path / "base")
    weights, expected = (load_file(one / "model.safetensors") for one in (tmp_path / "base", folder))
    assert weights.keys() == expected.keys() and ("lm_head.weight" in weights) != tied
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())
    base, model = load_model(tmp_path / "base"), load_model(folder)
    assert base.config.to_diff_dict() == model.config.to_diff_dict()
    assert base.config.rope_parameters["rope_type"] == rope
    ours, theirs = load_tokenizer(tmp_path / "base"), load_tokenizer(folder)
    assert ours.get_vocab() == theirs.get_vocab() and ours.all_special_ids == theirs.all_special_ids
    for text in TEXTS:
        assert ours(text).input_ids == theirs(text).input_ids
        assert ours.decode(ours(text).input_ids) == theirs.decode(theirs(text).input_ids)
    assert (ours("a").input_ids[0] == ours.bos_token_id) == (kind == LLAMA3)
    ids = torch.tensor([ours(TEXTS[0]).input_ids])
    assert torch.equal(base(ids).logits, model(ids).logits)


def test_quantised_weights_are_those_that_transformers_reads_and_the_config_says_so(converted, tmp_path):
    folder, file = converted()
    quantised = tmp_path / "llama.gguf"
    llamacpp.quantize(file, quantised, "q8_0", {})
    from_gguf(quantised, tmp_path / "base")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=quantised.name, dtype=torch.float32).state_dict()
    weights, exact = (load_file(one / "model.safetensors") for one in (tmp_path / "base", folder))
    assert all(torch.equal(weight, theirs[name].bfloat16()) for name, weight in weights.items())
    assert not all(torch.equal(weight, exact[name]) for name, weight in weights.items())
    assert read_json(tmp_path / "base/config.json")[DEQUANTISED_FROM] == "Q8_0"
    assert load_model(tmp_path / "base").config.hidden_size == 64


def test_weights_of_16_bits_are_not_said_to_be_dequantised(converted, tmp_path):
    from_gguf(converted()[1], tmp_path / "base")
    assert DEQUANTISED_FROM not in read_json(tmp_path / "base/config.json")


def test_llama3s_own_vocabulary_gives_the_token_ids_of_llama_cpps_tests(tmp_path):
    file = llama_cpp_build() / "models/ggml-vocab-llama-bpe.gguf"
    keys = {key: field.contents() for key, field in GGUFReader(file).fields.items()}
    gguf_tokenizer.require_known(file, keys)
    gguf_tokenizer.write_tokenizer(keys, tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    *texts, end = file.with_name(f"{file.name}.inp").read_text().split("\n__ggml_vocab_test__\n")
    expected = file.with_name(f"{file.name}.out").read_text().splitlines()
    assert end == ""
    for text, ids in zip(texts, expected, strict=True):
        assert tokenizer.encode(text).ids == [128000, *map(int, ids.split())], text


def cut(content, length):
    return content[:length]


def renamed(content, old, new):
    """Another value of the same length, which leaves every other byte in its place."""
    assert content.count(old) == 1 and len(old) == len(new)
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (partial(cut, length=0), "not a GGUF, or cut off"),
        (partial(cut, length=300), "not a GGUF, or cut off"),
        (partial(cut, length=-5), "not a GGUF, or cut off"),
        (lambda content: b"PK\3\4" + content, "not a GGUF, or cut off"),
        (partial(renamed, old=b"\0llama\x0c", new=b"\0gemma\x0c"), "architecture is 'gemma'"),
        (partial(renamed, old=b"llama-bpe", new=b"smaug-bpe"), "split as 'smaug-bpe' (tokenizer.ggml.model and .pre)"),
        (partial(renamed, old=b"\0gpt2", new=b"\0bert"), "its tokenizer is 'bert'"),
        (partial(renamed, old=b"blk.1.attn_q.weight", new=b"blk.1.attn_q.biases"), "no tensor blk.1.attn_q.biases"),
        (partial(renamed, old=b"blk.1.attn_q.weight", new=b"blk.7.attn_q.weight"), "layers.1.self_attn.q_proj.weight"),
    ],
)
def test_what_is_no_whole_llama_is_refused_before_anything_is_written(converted, tmp_path, spoil, message):
    file = tmp_path / "ein größeres Modell.gguf"
    file.write_bytes(spoil(converted()[1].read_bytes()))
    with pytest.raises(UserError) as error:
        from_gguf(file, tmp_path / "base")
    assert message in str(error.value) and file.name in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "base").exists()


def test_rotary_factors_that_are_not_llama3s_are_refused(converted, tmp_path):
    file = tmp_path / "llama.gguf"
    shutil.copyfile(converted(rope="llama3")[1], file)
    (factors,) = (tensor for tensor in GGUFReader(file, "r+").tensors if tensor.name == ROPE_FACTORS)
    factors.data[0] = 2.0
    factors.data.flush()
    with pytest.raises(UserError, match=r"no rotary positions of Llama-3.1's kind"):
        from_gguf(file, tmp_path / "base")


def test_a_file_of_ones_own_is_pinned_by_its_hash(converted, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    name = "ein größeres Modell.gguf"
    (tmp_path / name).write_bytes(converted()[1].read_bytes())
    with local.gguf_file(Gguf(name, "", "", "", sha256(tmp_path / name))) as file:
        assert file.samefile(tmp_path / name)
    for path, pin, message in ((name, "0" * 64, "0" * 64), (name, "", "has none"), ("none", "", "no such file")):
        with pytest.raises(UserError, match=message), local.gguf_file(Gguf(path, "", "", "", pin)):
            pass
