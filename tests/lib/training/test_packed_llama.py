"""The Llama that is trained gives transformers' own loss and gradients."""

import pytest
import torch
from datasets import load_from_disk
from peft import get_peft_model
from transformers import set_seed

from stages.lib.model.loading import load_model, trained_token_ids
from stages.lib.training import adapters
from stages.lib.training.trainer import collate
from support.settings import train_settings


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_the_training_call_gives_transformers_own_loss_and_gradients(method, base, tokenized):
    """The whole model, below PEFT with trained token rows: packed sequences in, the same loss and gradients out."""
    ids = trained_token_ids(base)
    train = train_settings(method=method)
    sequences = load_from_disk(tokenized / "train").with_format("numpy")
    batch = collate([sequences[0], sequences[1]])
    del batch["record_ids"], batch["tokens"]
    plain = load_model(base, torch.float32, "sdpa")
    if method != "full":
        set_seed(1)
        plain = get_peft_model(plain, adapters.lora_config(train, ids))

    packed = adapters.trainable(base, train, ids, 1).eval()
    ours = packed(**batch, num_items_in_batch=50)
    assert ours.logits is None
    ours.loss.backward()
    theirs = plain(**{name: batch[name] for name in ("input_ids", "labels", "position_ids")}, num_items_in_batch=50)
    theirs.loss.backward()

    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-4)
    our_grads, their_grads = (
        {name: p.grad for name, p in model.named_parameters() if p.requires_grad} for model in (packed, plain)
    )
    assert list(our_grads) == list(their_grads)
    assert packed.state_dict().keys() == plain.state_dict().keys()
    for name, grad in our_grads.items():
        torch.testing.assert_close(grad, their_grads[name], rtol=1e-3, atol=1e-5, msg=name)
