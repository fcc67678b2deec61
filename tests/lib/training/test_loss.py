"""The loss without logits equals the plain one, gradients included."""

import pytest
import torch
from datasets import load_from_disk
from torch.nn.functional import cross_entropy

from conftest import CHATML, train_settings
from stages.lib import adapters, loss
from stages.lib.finetune import collate
from stages.lib.models import load_tokenizer


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
    got = loss.LinearCrossEntropy.apply(*ours, ids, target)
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


def test_no_chunk_is_larger_than_it_may_be(monkeypatch):
    seen = []
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 500 * 5)
    original = torch.Tensor.log_softmax
    monkeypatch.setattr(
        torch.Tensor, "log_softmax", lambda self, *a, **k: seen.append(self.shape) or original(self, *a, **k)
    )
    ours, target = inputs(torch.float32, trained=True)
    loss.LinearCrossEntropy.apply(*ours, [7, 450], target)
    assert {shape[0] for shape in seen} == {5} and len(seen) == 8


def test_the_training_call_gives_transformers_own_loss_and_gradients(base, tokenized):
    """The whole model under PEFT, with trained token rows: packed rows in, the same loss and gradients out."""
    ids = load_tokenizer(base).convert_tokens_to_ids(CHATML.trained_tokens)
    rows = load_from_disk(tokenized / "train").with_format("numpy")
    batch = collate([rows[0], rows[1]])
    del batch["record_ids"], batch["tokens"]
    results = []
    for attention in ("documents", "sdpa"):
        model = adapters.trainable(base, "lora", "none", "fp32", attention, train_settings().lora, ids, 1).eval()
        if attention == "documents":
            loss.without_logits(model.get_base_model(), ids, offload=False)
            got = model(**batch, num_items_in_batch=50).loss
        else:
            plain = {name: batch[name] for name in ("input_ids", "labels", "position_ids")}
            got = model(**plain, num_items_in_batch=50).loss
        got.backward()
        results.append((got, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    (ours, our_grads), (theirs, their_grads) = results
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)
    assert our_grads.keys() == their_grads.keys()
    for name, grad in our_grads.items():
        torch.testing.assert_close(grad, their_grads[name], rtol=1e-3, atol=1e-5, msg=name)
