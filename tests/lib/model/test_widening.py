"""Where float32 weights do not fit, the same results come from 16-bit ones."""

import numpy as np
import pytest
import torch

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json
from stages.lib.evaluation.engines import transformers_model
from stages.lib.evaluation.engines.transformers_model import TransformersModel
from stages.lib.model import widening
from stages.lib.model.chat import prompt_ids
from stages.lib.model.inference_memory import beside_weights
from stages.lib.model.loading import load_tokenizer
from support.kinds import LLAMA3
from support.sample import conversations

TIED_OR_NOT = [LLAMA3, LLAMA3._replace(tied=True)]  # what a kind of Llama changes about its weights
pytestmark = pytest.mark.parametrize("kind", TIED_OR_NOT, indirect=True, scope="session", ids=str)


def test_widened_weights_give_float32_results_in_half_the_memory(base, adapter, merged, monkeypatch):
    """Of a model, and of a base with what was trained over it, token rows included."""
    tokenizer = load_tokenizer(base)
    ids = prompt_ids(tokenizer, conversations(1)[0]["messages"])
    monkeypatch.setattr(widening, "BAND", 1000)  # so that a weight has several
    for folder, over in ((merged, None), (base, adapter)):
        plain = TransformersModel(folder, over)
        with monkeypatch.context() as context:
            size = sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))
            config = read_json(folder / "config.json")
            room = 1.9 * size + beside_weights(config, plain.tokens, plain.scored, 4)
            context.setattr(transformers_model, "free_memory", lambda _, room=room: room)
            widened = TransformersModel(folder, over)
        assert widened.tokens == widening.TOKENS < plain.tokens
        weights = dict(widened.model.named_parameters())
        assert all(
            w.dtype == torch.float16 for name, w in weights.items() if "lora" not in name and "delta" not in name
        )
        expected, found = plain.logits(ids), widened.logits(ids)
        assert found.dtype == np.float32
        # The base's bfloat16 numbers are float16 ones too; trained token rows are rounded, as merging rounds them.
        np.testing.assert_allclose(found, expected, atol=1e-4 if over is None else 1e-2)
        answers = [[[5, 6, 7], [8]]]
        for one, other in zip(*(m.ask([ids], answers, 5, set())[0].logprobs for m in (plain, widened)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4 if over is None else 1e-2)


def test_what_does_not_fit_in_16_bits_either_is_refused(kind, merged, monkeypatch):
    monkeypatch.setattr(transformers_model, "free_memory", lambda _: 1)
    monkeypatch.setattr("stages.lib.model.device.free_memory", lambda _: 1)
    with pytest.raises(UserError, match=r"in 16 bits, takes about 1\.\d+ GB of memory, 0\.00 GB are free; free some"):
        TransformersModel(merged)
