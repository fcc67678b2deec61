"""Safetensors by rows: what others wrote is read, what is written others read, and what is broken is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.lib.core.errors import UserError
from stages.lib.core.files import write_json
from stages.lib.model import weights

WEIGHTS = {"a": torch.randn(7, 5), "b": torch.randn(3).bfloat16(), "c": torch.randn(2, 3, 4).half()}


def test_rows_are_those_that_safetensors_reads(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    stored = weights.stored_in(tmp_path)
    assert set(stored) == set(WEIGHTS)
    for name, weight in WEIGHTS.items():
        assert torch.equal(weights.read(stored[name]), weight)
        assert torch.equal(weights.read(stored[name], 1, 2), weight[1:2])


def test_what_cannot_be_written_is_an_os_error(tmp_path):
    """Which a stage ends with in one sentence; safetensors has an error of its own, also for a full disk."""
    with pytest.raises(OSError, match=r"absent/model.safetensors: .*No such file"):
        weights.save(tmp_path / "absent/model.safetensors", WEIGHTS)


def test_what_is_written_by_rows_safetensors_reads(tmp_path):
    path, whole = tmp_path / "model.safetensors", {"a": torch.randn(7, 5).half(), "b": torch.randn(3).half()}
    with weights.writing(path, {name: tuple(weight.shape) for name, weight in whole.items()}, torch.float16) as file:
        for weight in whole.values():
            for row in weight:
                file.write(row.numpy().tobytes())
    read = load_file(path)
    assert all(torch.equal(read[name], weight) for name, weight in whole.items())


def test_the_digest_knows_names_and_bytes(tmp_path):
    digests = set()
    for name, value in (("a", 1.0), ("a", 2.0), ("b", 1.0)):
        save_file({name: torch.tensor([value])}, tmp_path / "model.safetensors")
        digests.add(weights.digest(tmp_path))
    assert len(digests) == 3


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def cut_in_the_header(path):
    path.write_bytes(path.read_bytes()[:40])


def quantised(path):
    save_file({"a": torch.zeros(3, dtype=torch.int8)}, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [(cut, "it was cut off or altered"), (cut_in_the_header, "cut off or no safetensors file: 40 bytes"),
     (lambda path: path.write_bytes(b""), "cut off or no safetensors file: 0 bytes"),
     (lambda path: path.write_text("version https://git-lfs"), "no safetensors file"),
     (quantised, "a is I8, expected F16, BF16, F32")],
)  # fmt: skip
def test_a_broken_file_is_one_sentence(tmp_path, change, message):
    path = tmp_path / "model.safetensors"
    save_file(WEIGHTS, path)
    change(path)
    with pytest.raises(UserError, match=message) as caught:
        weights.stored_in(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_shard_is_named(tmp_path):
    save_file(WEIGHTS, tmp_path / "model-00001-of-00002.safetensors")
    places = dict.fromkeys(WEIGHTS, "model-00001-of-00002.safetensors") | {"d": "model-00002-of-00002.safetensors"}
    write_json(tmp_path / weights.INDEX, {"weight_map": places})
    with pytest.raises(UserError, match=r"model-00002-of-00002.safetensors: no such file, but .*index.json names it"):
        weights.stored_in(tmp_path)


def test_a_pickle_is_refused_and_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    torch.save({"a": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only pickled weights there \(pytorch_model.bin\)"):
        weights.stored_in(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    for name in ("one", "two"):
        save_file(WEIGHTS, tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match=r"a is in one\.safetensors too"):
        weights.stored_in(tmp_path)


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    stored = weights.stored_in(tmp_path)
    cut(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="it ended while it was read"):
        for one in stored.values():
            weights.read(one)


def test_a_header_that_is_no_object_is_refused(tmp_path):
    text = json.dumps([1]).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(UserError, match="no safetensors file"):
        weights.stored_in(tmp_path)
