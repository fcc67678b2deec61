"""The fused linear cross-entropy equals the plain one, gradients included."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from stages.lib.training import loss


def inputs(dtype, trained):
    torch.manual_seed(0)
    hidden, weight = torch.randn(37, 32, dtype=dtype), torch.randn(500, 32, dtype=dtype) / 4
    rows = torch.randn(2, 32) / 4 if trained else None
    target = torch.randint(0, 500, (37,))
    target[0] = 7  # one of the trained rows is an answer
    leaves = [hidden.requires_grad_(), weight.requires_grad_(not trained)]
    return [*leaves, rows.requires_grad_() if trained else None], target


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, 1000])  # rows of logits at a time
def test_loss_and_gradients_are_those_of_plain_cross_entropy(dtype, trained, chunk, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 500 * chunk)
    ids = [7, 450] if trained else None
    ours, target = inputs(dtype, trained)
    got = loss.LinearCrossEntropy.apply(*ours, torch.tensor(ids) if trained else None, target)
    (got / 37).backward()

    (hidden, weight, rows), _ = inputs(dtype, trained)
    matrix = weight.index_copy(0, torch.tensor(ids), rows.to(dtype)) if trained else weight
    expected = cross_entropy((hidden @ matrix.T).float(), target, reduction="sum")
    (expected / 37).backward()
    assert got.item() == pytest.approx(expected.item(), rel=1e-4)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-3}
    for mine, plain in zip(ours, (hidden, weight, rows), strict=True):
        if plain is not None and plain.requires_grad:
            torch.testing.assert_close(mine.grad, plain.grad, **tolerance)


@pytest.mark.parametrize(("vocabulary", "rows"), [(128_256, 256), (49_152, 640), (32_000, 1024), (10**9, 128)])
def test_a_gpus_chunks_are_whole_tiles(vocabulary, rows):
    assert loss.chunk_rows(vocabulary, gpu=True) == rows
    assert loss.chunk_rows(vocabulary, gpu=False) == max(1, loss.CHUNK_BYTES // (4 * vocabulary))


def test_no_chunk_is_larger_than_it_may_be(monkeypatch):
    seen = []
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 500 * 5)
    original = torch.Tensor.log_softmax
    monkeypatch.setattr(
        torch.Tensor, "log_softmax", lambda self, *a, **k: seen.append(self.shape) or original(self, *a, **k)
    )
    ours, target = inputs(torch.float32, trained=True)
    loss.LinearCrossEntropy.apply(*ours, torch.tensor([7, 450]), target)
    assert {shape[0] for shape in seen} == {5} and len(seen) == 8
