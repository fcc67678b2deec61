"""Whether llama.cpp reads a GGUF as transformers reads the model that it was made from."""

from pathlib import Path

import numpy as np
from gguf import GGUFReader
from transformers import PreTrainedTokenizerBase

from stages.lib.core.files import read_json
from stages.lib.evaluation.engines.batches import greedy
from stages.lib.evaluation.engines.gguf_model import GgufModel
from stages.lib.evaluation.engines.logits import log_softmax
from stages.lib.evaluation.engines.transformers_model import TransformersModel
from stages.lib.evaluation.verification import probes
from stages.lib.evaluation.verification.check import Check
from stages.lib.export import llama_server, llamacpp
from stages.lib.model import chat

CHUNK = 128  # tokens a chunk of the text whose perplexity is cross-checked
CHUNKS = 40  # how many of them at most
PERPLEXITY = 1e-3  # how far ours may be from llama-perplexity's, relative


def token_ids(tokenizer: PreTrainedTokenizerBase, model: GgufModel) -> Check:
    """Every text of `probes` has the same ids on both sides, none of them a control token's."""
    control = tokenizer.added_tokens_decoder
    texts = probes.strings([str(token) for token in control.values()])
    different = []
    for text in texts:
        ids = chat.content_ids(tokenizer, text)
        if ids != model.tokenize(text.strip(), special=False) or not control.keys().isdisjoint(ids):
            different.append(text)
    return _none_differs("the same token ids", different, len(texts), "texts")


def prompts(tokenizer: PreTrainedTokenizerBase, gguf: Path, asked: list[list[dict]], context: int) -> Check:
    """llama-server, by the template in the GGUF, renders each conversation to the text and the ids that we do.

    One BOS begins them. The server may leave its spelling out of the text and put its id in front.
    """
    different = []
    with llama_server.serving(gguf, context) as server:
        for messages in asked:
            text = server.rendered(messages).removeprefix(tokenizer.bos_token)
            ids = server.tokenized(text)
            same_text = text == chat.rendered(tokenizer, messages, answering=True).removeprefix(tokenizer.bos_token)
            same_ids = ids == chat.prompt_ids(tokenizer, messages)
            if not (same_text and same_ids and ids.count(tokenizer.bos_token_id) == 1):
                different.append(text)
    return _none_differs("the same prompts in llama-server", different, len(asked), "prompts")


def stop_tokens(merged: Path, tokenizer: PreTrainedTokenizerBase, gguf: Path) -> Check:
    """Both configs list the same ids that end an answer; tokenizer and GGUF have the one of them that ends a turn."""
    config = read_json(merged / "config.json")["eos_token_id"]
    generation = read_json(merged / "generation_config.json")["eos_token_id"]
    in_gguf = GGUFReader(gguf).fields["tokenizer.ggml.eos_token_id"].contents()
    listed = config if isinstance(config, list) else [config]
    holds = config == generation and in_gguf == tokenizer.eos_token_id and in_gguf in listed
    ids = f"config {config}, generation_config {generation}, tokenizer {tokenizer.eos_token_id}, GGUF {in_gguf}"
    return Check("the same stop tokens", holds, ids, "the same in both configs, one of them in tokenizer and GGUF")


def answers_end(
    merged: TransformersModel, model: GgufModel, asked: list[list[int]], max_new_tokens: int, stop_ids: set[int]
) -> Check:
    """A greedy answer that the merged model ends with EOS, the GGUF ends too.

    Whether a model ends its answers at all is no question of its export: a gate of the report asks it.
    """
    wanted = greedy(merged, asked, max_new_tokens, stop_ids, "answers of the merged model")
    answers = greedy(model, asked, max_new_tokens, stop_ids, "answers of the GGUF")
    to_end = [ids for ids, one in zip(answers, wanted, strict=True) if len(one) < max_new_tokens]
    ended = sum(len(ids) < max_new_tokens for ids in to_end)
    observed = f"{ended} of {len(to_end)}, of {len(asked)} prompts within {max_new_tokens} tokens"
    return Check("answers end with EOS", ended == len(to_end), observed, "all that the merged model ends")


def perplexity(model: GgufModel, gguf: Path, text: str, bos: int) -> Check:
    """Our perplexity of a plain text is llama-perplexity's.

    Its rules: chunks, each with a BOS in place of its first token, of which the second half is scored.
    """
    ids = [bos, *model.tokenize(text, special=False)][: CHUNK * CHUNKS]
    losses: list[float] = []
    for start in range(0, len(ids) - CHUNK + 1, CHUNK):
        chunk = [bos, *ids[start + 1 : start + CHUNK]]
        scored = chunk[CHUNK // 2 + 1 :]
        logprobs = log_softmax(model.logits(chunk)[CHUNK // 2 : -1])
        losses += (-logprobs[np.arange(len(scored)), scored]).tolist()
    ours = float(np.exp(np.mean(losses)))
    theirs = llamacpp.perplexity(gguf, text, CHUNK, CHUNKS)
    observed = f"ours {ours:.4f}, llama-perplexity's {theirs:.4f}"
    holds = abs(ours / theirs - 1) <= PERPLEXITY
    return Check("perplexity as llama-perplexity", holds, observed, f"within {PERPLEXITY:.1%} of each other")


def tensor_types(gguf: Path) -> dict[str, dict[str, int] | int]:
    """Which types the tensors of a GGUF have.

    `types`: how many are of each; `fallbacks`: how many matrices have rows that do not divide by 256, for which the
    quantizer takes a type of smaller blocks.
    """
    tensors = GGUFReader(gguf).tensors
    names = [tensor.tensor_type.name for tensor in tensors]
    fallbacks = sum(len(tensor.shape) > 1 and int(tensor.shape[0]) % 256 != 0 for tensor in tensors)
    return {"types": {name: names.count(name) for name in sorted(set(names))}, "fallbacks": fallbacks}


def _none_differs(name: str, different: list[str], count: int, what: str) -> Check:
    example = f", e.g. {different[0]!r}" if different else ""
    return Check(name, not different, f"{len(different)} of {count} {what} differ{example}", "none")
