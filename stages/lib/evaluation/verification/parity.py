"""Whether llama.cpp reads a GGUF as transformers reads the model that it was made from."""

import re
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from transformers import PreTrainedTokenizerBase

from stages.lib.core.files import read_json
from stages.lib.evaluation.engines.gguf_model import GgufModel
from stages.lib.evaluation.engines.logits import log_softmax
from stages.lib.evaluation.verification import probes
from stages.lib.evaluation.verification.check import Check
from stages.lib.export import llama_server, llamacpp
from stages.lib.model import chat

CHUNK = 128  # tokens a chunk of the text whose perplexity is cross-checked
CHUNKS = 10  # how many of them at most
BLOCKS_OF_256 = re.compile("_K|iq3|iq4_XS")  # quant types of llama.cpp, as this project spells them
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

    One BOS begins them where the base's tokenizer puts it, else none is put. The server may leave BOS' spelling out of
    the text and put its id in front.
    """
    bos = tokenizer.bos_token if chat.puts_bos(tokenizer) else ""
    different = []
    with llama_server.serving(gguf, context) as server:
        for messages in asked:
            text = server.rendered(messages).removeprefix(bos)
            ids = server.tokenized(text)
            same_text = text == chat.rendered(tokenizer, messages, answering=True).removeprefix(bos)
            same_ids = ids == chat.prompt_ids(tokenizer, messages)
            if not (same_text and same_ids and (not bos or ids.count(tokenizer.bos_token_id) == 1)):
                different.append(text)
    return _none_differs("the same prompts in llama-server", different, len(asked), "prompts")


def stop_tokens(merged: Path, tokenizer: PreTrainedTokenizerBase, gguf: GGUFReader) -> Check:
    """Both configs list the same ids that end an answer; tokenizer and GGUF have the one of them that ends a turn."""
    config = read_json(merged / "config.json")["eos_token_id"]
    generation = read_json(merged / "generation_config.json")["eos_token_id"]
    in_gguf = gguf.fields["tokenizer.ggml.eos_token_id"].contents()
    listed = config if isinstance(config, list) else [config]
    holds = config == generation and in_gguf == tokenizer.eos_token_id and in_gguf in listed
    ids = f"config {config}, generation_config {generation}, tokenizer {tokenizer.eos_token_id}, GGUF {in_gguf}"
    return Check("the same stop tokens", holds, ids, "the same in both configs, one of them in tokenizer and GGUF")


def answers_end(wanted: list[list[int]], answers: list[list[int]], max_new_tokens: int) -> Check:
    """A greedy answer that the merged model ends with EOS (`wanted`), the GGUF ends too (`answers`).

    Whether a model ends its answers at all is no question of its export: a gate of the report asks it.
    """
    to_end = [ids for ids, one in zip(answers, wanted, strict=True) if len(one) < max_new_tokens]
    ended = sum(len(ids) < max_new_tokens for ids in to_end)
    observed = f"{ended} of {len(to_end)}, of {len(wanted)} prompts within {max_new_tokens} tokens"
    return Check("answers end with EOS", ended == len(to_end), observed, "all that the merged model ends")


def perplexity_of(model: GgufModel, text: str, bos: int | None) -> float:
    """Our perplexity of a plain text by llama-perplexity's rules; `bos` is what the tokenizer puts in front, if any.

    The text is cut into chunks, each with that id in place of its first token, of which the second half is scored.
    """
    front = [] if bos is None else [bos]
    ids = [*front, *model.tokenize(text, special=False)][: CHUNK * CHUNKS]
    losses: list[float] = []
    for start in range(0, len(ids) - CHUNK + 1, CHUNK):
        chunk = [*front, *ids[start + len(front) : start + CHUNK]]
        scored = chunk[CHUNK // 2 + 1 :]
        logprobs = log_softmax(model.logits(chunk)[CHUNK // 2 : -1])
        losses += (-logprobs[np.arange(len(scored)), scored]).tolist()
    return float(np.exp(np.mean(losses)))


def same_perplexity(ours: float, gguf: Path, text: str) -> Check:
    """Our perplexity of a text is llama-perplexity's, which loads the file itself."""
    theirs = llamacpp.perplexity(gguf, text, CHUNK, CHUNKS)
    observed = f"ours {ours:.4f}, llama-perplexity's {theirs:.4f}"
    holds = abs(ours / theirs - 1) <= PERPLEXITY
    return Check("perplexity as llama-perplexity", holds, observed, f"within {PERPLEXITY:.1%} of each other")


def tensor_types(gguf: GGUFReader, kind: str) -> dict[str, dict]:
    """Which types the tensors of a GGUF of some quant type have.

    `types`: how many are of each; `fallbacks`: by the type that they have instead, the matrices whose rows do not
    divide by 256, where the quant type has blocks of 256: the quantizer takes one of smaller blocks for them.
    """
    names = [tensor.tensor_type.name for tensor in gguf.tensors]
    fallbacks: dict[str, list[str]] = {}
    for tensor in gguf.tensors:
        if BLOCKS_OF_256.search(kind) and len(tensor.shape) > 1 and int(tensor.shape[0]) % 256:
            fallbacks.setdefault(tensor.tensor_type.name, []).append(tensor.name)
    return {"types": {name: names.count(name) for name in sorted(set(names))}, "fallbacks": fallbacks}


def _none_differs(name: str, different: list[str], count: int, what: str) -> Check:
    example = f", e.g. {different[0]!r}" if different else ""
    return Check(name, not different, f"{len(different)} of {count} {what} differ{example}", "none")
