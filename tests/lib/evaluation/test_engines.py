"""A folder by transformers and its GGUF by llama.cpp are asked the same, and answer the same."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, write_json
from stages.lib.evaluation.engines import batches
from stages.lib.evaluation.engines.gguf_model import NO_MEMORY, GgufModel
from stages.lib.evaluation.engines.language_model import open_model
from stages.lib.evaluation.engines.text import Text
from stages.lib.evaluation.engines.transformers_model import TransformersModel
from stages.lib.evaluation.predict.examples import stop_ids_of
from stages.lib.evaluation.verification import probes
from stages.lib.export import llamacpp
from stages.lib.model import chat
from stages.lib.model.loading import load_tokenizer
from support.sample import conversations
from support.settings import ROOT


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


def test_token_ids_agree(merged, exported):
    tokenizer = load_tokenizer(merged)
    control = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    for text in probes.strings(control):
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
    for ids, ours, theirs in zip(asked, greedy(tuned, asked, 24), greedy(exported, asked, 24), strict=True):
        if parting := next((pair for pair in enumerate(zip(ours, theirs, strict=True)) if len(set(pair[1])) > 1), None):
            at, tokens = parting  # only where two tokens are as good as equally likely
            one, other = tuned.logits(ids + ours[:at])[-1][list(tokens)]
            assert abs(one - other) < 0.05


def test_a_text_is_read_as_if_it_were_alone(merged, tuned, exported):
    """Neither its neighbours in a batch, nor another answer beside it, nor an earlier call changes the result."""
    tokenizer = load_tokenizer(merged)
    asked = [ids[: len(ids) - 3 * i] for i, ids in enumerate(prompts(tokenizer, 5))]
    texts = ["A. rest", "B. a long course of antibiotics", "C", "This is most likely gout."]
    answers = [[chat.content_ids(tokenizer, text) for text in texts[: 1 + i % 4]] for i in range(len(asked))]
    for model in (tuned, exported):
        together = model.ask(asked, answers, 0, set())
        for ids, some, reply in zip(asked, answers, together, strict=True):
            for answer, found in zip(some, reply.logprobs, strict=True):
                ((alone,), said) = model.ask([ids], [[answer]], 0, set())[0]
                np.testing.assert_allclose(alone, found, atol=1e-3)
                assert said == []
        stop = set(greedy(model, asked, 9)[0][4:5])  # some end early, the others go on
        alone = [greedy(model, [ids], 12, stop)[0] for ids in asked]
        assert greedy(model, asked, 12, stop) == alone and len(set(map(len, alone))) > 1


def test_logits_exist_for_a_few_answers_at_a_time(merged, tuned, exported, monkeypatch):
    """How many texts are asked together does not depend on the vocabulary, and how many logits there are does."""
    tokenizer = load_tokenizer(merged)
    asked = prompts(tokenizer, 6)
    answers = [[chat.content_ids(tokenizer, text) for text in ("This is most likely gout.", "B. rest")]] * 6
    width = max(len(answer) for own in answers for answer in own)
    for model, name in ((tuned, "_head"), (exported, "_decode")):
        whole = model.ask(asked, answers, 4, set())
        seen = []
        real = getattr(model, name)

        def watched(first, *more, real=real, seen=seen, **named):
            if torch.is_tensor(first) and first.dim() == 3:
                seen.append(first.shape[0] * first.shape[1])
            if named.get("every"):
                seen.append(sum(len(part.ids) for part in first))
            return real(first, *more, **named)

        monkeypatch.setattr(model, name, watched)
        monkeypatch.setattr(model, "scored", 3 * width)
        for one, other in zip(whole, model.ask(asked, answers, 4, set()), strict=True):
            assert one.greedy == other.greedy
            np.testing.assert_allclose(np.concatenate(one.logprobs), np.concatenate(other.logprobs), atol=1e-4)
        assert len(seen) >= 3 and max(seen) <= 3 * width


def test_as_many_texts_as_fit_are_asked_together(tuned, exported):
    """In transformers each of a prompt's answers has the prompt's keys and values for itself; in a GGUF they share."""
    question = Text(prompt=60, answers=[10, 10, 10, 10], generated=40)
    assert tuned.fits([question] * 20) and not tuned.fits([question] * 21)  # of 8192: 4 × (60 + 40) each
    assert exported.fits([question] * 4) and not exported.fits([question] * 5)  # of 16 rows
    dialogue = Text(prompt=122, answers=[150], generated=256)
    assert tuned.fits([dialogue] * 21) and not tuned.fits([dialogue] * 22)


def test_a_gpu_without_memory_names_the_setting(tuned, merged, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has less.")

    monkeypatch.setattr(tuned, "ask", exhausted)
    told = (
        r"no memory left for 2 texts together \(CUDA out of memory\); free some, or lower evaluate\.predict\.batch_to"
    )
    with pytest.raises(UserError, match=told):
        greedy(tuned, prompts(load_tokenizer(merged), 2), 4)


def test_half_a_gpu_asks_for_room_for_keys_and_values(merged, monkeypatch):
    """4 layers' keys and values of 128 numbers, or whatever the config says, in 2 bytes, for each token."""
    monkeypatch.setattr("stages.lib.model.device.free_memory", lambda _: 2e9)
    TransformersModel(merged, dtype=torch.float16, tokens=8192)
    with pytest.raises(
        UserError, match=r"with 10000000 tokens at a time takes .*lower evaluate\.predict\.batch_tokens"
    ):
        TransformersModel(merged, dtype=torch.float16, tokens=10**7)


def test_log_probabilities_are_those_of_the_whole_text(merged, tuned):
    """The prompt's cache, shared by the answers, gives what one plain pass over prompt and answer gives."""
    tokenizer = load_tokenizer(merged)
    ids = prompts(tokenizer, 1)[0]
    answers = [chat.content_ids(tokenizer, text) for text in ("This is most likely gout.", "x", "B. rest and fluids")]
    for answer, scored in zip(answers, tuned.ask([ids], [answers], 0, set())[0].logprobs, strict=True):
        with torch.no_grad():
            logits = tuned.model(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1].double()
        expected = logits.log_softmax(-1)[range(len(answer)), answer]
        np.testing.assert_allclose(scored, expected, atol=1e-4)


def test_greedy_answers_end_by_themselves(merged, base, exported):
    answers = greedy(exported, prompts(load_tokenizer(merged)), 250, stop_ids_of(base))
    assert all(0 < len(answer) < 250 for answer in answers)


def test_a_greedy_answer_goes_on_where_it_leaves_the_given_one_that_it_follows(merged, tuned, exported):
    """Given answers that it says wholly, in part and not at all, it is the answer that it gives without them."""
    asked = prompts(load_tokenizer(merged), 4)
    free = greedy(tuned, asked, 24)
    answers = [
        [[5, 6], free[0]],  # all of it
        [[*free[1][:3], 5, 6], [7]],  # three tokens of it
        [[7, 8], [9]],  # nothing of it
        [[*free[3][:1], 5], [*free[3][1:2], 5]],
    ]
    stop = {free[1][5]}
    for model in (tuned, exported):
        replies = model.ask(asked, answers, 24, set())
        assert [reply.greedy for reply in replies] == free
        assert [[len(scored) for scored in reply.logprobs] for reply in replies] == [
            [len(answer) for answer in own] for own in answers
        ]
        assert [reply.greedy for reply in model.ask(asked, answers, 7, stop)] == greedy(tuned, asked, 7, stop)


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
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]  # as many tokens, two of them swapped
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


REFUSED = """
import resource, sys
from pathlib import Path
from unittest.mock import patch
from stages.lib.core.errors import UserError
from stages.lib.evaluation.engines.gguf_model import GgufModel
GgufModel(Path(sys.argv[1]), 64).close()
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 30), -1))  # bytes
try:
    with patch("stages.lib.model.device.free_memory", lambda _: 1e18):
        GgufModel(Path(sys.argv[1]), 1 << 22)
except UserError as error:
    print(error)
"""


def test_a_gguf_without_room_names_memory(gguf):
    """Asked before; and where llama.cpp itself gets none, it gives a null, which must be looked at."""
    with pytest.raises(UserError, match=r"tokens at a time takes about .* GB of memory.*lower the context \(--context"):
        GgufModel(gguf, 1 << 30)
    with pytest.raises(UserError, match=r"lower evaluate\.predict\.batch_tokens from 1073741824"):
        GgufModel(gguf, 512, rows=2, tokens=1 << 30)
    with pytest.raises(UserError, match=r"lower evaluate\.predict\.context from 1073741824"):
        GgufModel(gguf, 1 << 30, rows=2)
    done = subprocess.run([sys.executable, "-c", REFUSED, str(gguf)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "cannot read 4194304 tokens at a time (" in done.stdout and "free some memory, or lower" in done.stdout


def test_the_context_that_fits_is_named(merged, gguf, monkeypatch):
    """It fits, and one token more does not: 16-bit keys, values and mask, 32-bit logits of each token read."""
    config = read_json(merged / "config.json")
    layers, vocabulary = config["num_hidden_layers"], config["vocab_size"]
    width = config["hidden_size"] // config["num_attention_heads"] * config["num_key_value_heads"]
    room = 1e9
    monkeypatch.setattr("stages.lib.evaluation.engines.gguf_model.free_memory", lambda _: room)
    monkeypatch.setattr("stages.lib.model.device.free_memory", lambda _: room)
    with pytest.raises(UserError) as error:
        GgufModel(gguf, 1 << 24)
    fit = int(re.search(r"about (\d+) fit", str(error.value))[1])
    assert fit < (1 << 28) // vocabulary  # so all of them may be read at once
    cost = [2 * n * (2 * layers * width + n) + 4 * n * vocabulary for n in (fit, fit + 1)]
    assert cost[0] <= room < cost[1]


def test_a_gguf_that_gets_no_memory_while_it_reads_says_so(gguf, monkeypatch):
    model = GgufModel(gguf, 64)
    monkeypatch.setattr(model.c, "llama_decode", lambda *_: NO_MEMORY)
    with pytest.raises(UserError, match=r"cannot read 2 tokens at a time.*lower the context .* from 64"):
        model.logits([5, 6])
    model.close()
