from itertools import pairwise

import numpy as np
import pytest
import torch
from datasets import load_from_disk

from stages.lib.model.chat import IGNORED
from stages.lib.model.loading import load_model
from stages.lib.training.attention import boundaries, documents
from stages.lib.training.packing import pack
from stages.lib.training.trainer import collate


def examples(lengths):
    return [(10 * i + np.arange(n, dtype=np.int32),) * 2 for i, n in enumerate(lengths)]


def test_every_document_is_in_one_sequence_whole_and_padding_is_never_trained():
    documents = examples([7, 3, 9, 2, 2, 5, 10, 1])
    filled, members = pack(documents, max_length=10, pad=-1)
    assert sorted(i for row in members for i in row) == list(range(len(documents)))
    assert filled.pop("tokens").tolist() == [sum(len(documents[i][0]) for i in row) for row in members]
    columns = {name: column.tolist() for name, column in filled.items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    found = []
    for row in rows:
        assert len(row["input_ids"]) == len(row["labels"]) == len(row["position_ids"]) == 10
        starts = [i for i, position in enumerate(row["position_ids"]) if position == 0] + [10]
        for start, stop in pairwise(starts):
            ids = row["input_ids"][start:stop]
            assert row["position_ids"][start:stop] == list(range(stop - start))
            if -1 in ids:
                assert set(ids) == {-1} and set(row["labels"][start:stop]) == {IGNORED}
            else:
                assert row["labels"][start:stop] == [IGNORED, *ids[1:]]
                found.append(ids)
    assert sorted(found) == sorted(ids.tolist() for ids, _ in documents)
    assert len(rows) == 4  # 39 tokens: no packing into sequences of 10 needs fewer


def test_documents_of_a_sequence_do_not_see_each_other(base, tokenized):
    """The very call that training makes: collated sequences, documents' attention, no attention_mask, no cache."""
    model = load_model(base, attention="documents")
    sequences = load_from_disk(tokenized / "train").with_format("numpy")
    batch = collate([sequences[0], sequences[1]])
    assert len(batch.pop("record_ids")) == (batch["cu_seq_lens_q"] < batch.pop("tokens")).sum()
    start = int(batch["cu_seq_lens_q"][1])
    assert start > 1
    changed = batch | {"input_ids": batch["input_ids"].clone()}
    changed["input_ids"][0, : start - 1] = (changed["input_ids"][0, : start - 1] + 1) % 700
    with torch.no_grad():
        before, after = (model.model(**one, use_cache=False).last_hidden_state for one in (batch, changed))
    assert not torch.equal(before[0, :start], after[0, :start])
    assert torch.equal(before[0, start:], after[0, start:])


@pytest.mark.parametrize("attention", ["documents", "sdpa"])
def test_packed_logits_are_those_of_the_document_alone(attention, base, tokenized):
    model = load_model(base, attention=attention)
    row = next(row for row in load_from_disk(tokenized / "train") if row["position_ids"].count(0) > 2)
    starts = [i for i, position in enumerate(row["position_ids"]) if position == 0]
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad():
        positions = torch.tensor([row["position_ids"]])
        packed = model(input_ids=ids, position_ids=positions, **boundaries(positions)).logits[0]
        part = positions[:, starts[1] : starts[2]]
        alone = model(input_ids=ids[:, starts[1] : starts[2]], position_ids=part, **boundaries(part)).logits[0]
    torch.testing.assert_close(packed[starts[1] : starts[2]], alone, atol=1e-4, rtol=1e-4)


def test_attention_on_a_cpu_is_made_in_float32_whatever_autocast_says():
    """Its backward pass takes twice as long in bfloat16 there."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 100, 16).bfloat16() for heads in (4, 2, 2))
    told = boundaries(torch.cat([torch.arange(60), torch.arange(40)])[None])
    del told["cu_seq_lens_k"], told["max_length_k"]
    plain, _ = documents(None, query.float(), key.float(), value.float(), None, 0.25, **told)
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = documents(None, query, key, value, None, 0.25, **told)
    assert torch.equal(cast, plain.bfloat16())
