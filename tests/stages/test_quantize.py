"""From the float16 GGUF to a quant type, with an importance matrix and without, and types of single matrices."""

from collections import defaultdict

from gguf import GGUFReader

from stages import imatrix, quantize
from stages.lib.core import paths
from stages.lib.core.files import sha256
from stages.lib.export import llamacpp
from stages.lib.settings.export import MATRICES, QUANT_TYPES, TENSOR_TYPES


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
