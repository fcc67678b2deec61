"""Whether llama.cpp reads a GGUF as transformers reads the model that it was made from.

Each check returns whether it holds, and what was seen.
"""

import json
import urllib.request
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from transformers import PreTrainedTokenizerBase

from stages.lib import chat, golden, llamacpp
from stages.lib.batches import greedy
from stages.lib.files import read_json
from stages.lib.gguf_model import GgufModel
from stages.lib.perplexity import log_softmax

Check = tuple[bool, str]
CHUNK, CHUNKS = 128, 40  # tokens a chunk of the text whose perplexity is cross-checked, and how many at most
PERPLEXITY = 1e-3  # how far ours may be from llama-perplexity's, relative


def token_ids(tokenizer: PreTrainedTokenizerBase, model: GgufModel) -> Check:
    """Every text of `golden` has the same ids on both sides, none of them a control token's."""
    control = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    texts, special, different = golden.strings(control), set(tokenizer.added_tokens_decoder), []
    for text in texts:
        ids = chat.content_ids(tokenizer, text)
        if ids != model.tokenize(text.strip(), special=False) or special & set(ids):
            different.append(text)
    return _none_of(different, len(texts), "texts")


def prompts(tokenizer: PreTrainedTokenizerBase, gguf: Path, asked: list[list[dict]], context: int) -> Check:
    """llama-server, by the template in the GGUF, makes of each conversation the text and the ids that we make.

    One token begins them. The server may leave its spelling out of the text and put its id in front.
    """
    different, begin = [], tokenizer.bos_token
    with llamacpp.server(gguf, context) as address:
        for messages in asked:
            text = _post(f"{address}/apply-template", {"messages": messages})["prompt"].removeprefix(begin)
            spoken = {"content": text, "add_special": True, "parse_special": True}
            ids = _post(f"{address}/tokenize", spoken)["tokens"]
            same_text = text == chat.rendered(tokenizer, messages, answering=True).removeprefix(begin)
            if not same_text or ids != chat.prompt_ids(tokenizer, messages) or ids.count(tokenizer.bos_token_id) != 1:
                different.append(text)
    return _none_of(different, len(asked), "prompts")


def stop_tokens(merged: Path, tokenizer: PreTrainedTokenizerBase, gguf: Path) -> Check:
    """Both configs list the same ids that end an answer; tokenizer and GGUF have the one of them that ends a turn."""
    first, second = (read_json(merged / f"{name}.json")["eos_token_id"] for name in ("config", "generation_config"))
    in_gguf = GGUFReader(gguf).fields["tokenizer.ggml.eos_token_id"].contents()
    listed = first if isinstance(first, list) else [first]
    holds = first == second and in_gguf == tokenizer.eos_token_id and in_gguf in listed
    return holds, f"config {first}, generation_config {second}, tokenizer {tokenizer.eos_token_id}, GGUF {in_gguf}"


def answers_end(model: GgufModel, asked: list[list[int]], max_new_tokens: int, stop: set[int]) -> Check:
    """Every greedy answer ends by itself."""
    endless = sum(len(ids) >= max_new_tokens for ids in greedy(model, asked, max_new_tokens, stop, "ends by itself"))
    return not endless, f"{len(asked) - endless} of {len(asked)} within {max_new_tokens} tokens"


def perplexity(model: GgufModel, gguf: Path, text: str, begin: int) -> Check:
    """Our perplexity of a plain text is llama-perplexity's.

    Its rules: chunks, each with a token that begins it in place of its first, of which the second half is scored.
    """
    ids, losses = [begin, *model.tokenize(text, special=False)][: CHUNK * CHUNKS], []
    for start in range(0, len(ids) - CHUNK + 1, CHUNK):
        chunk = [begin, *ids[start + 1 : start + CHUNK]]
        wanted = chunk[CHUNK // 2 + 1 :]
        logprobs = log_softmax(model.logits(chunk)[CHUNK // 2 : -1])
        losses += (-logprobs[np.arange(len(wanted)), wanted]).tolist()
    ours, theirs = float(np.exp(np.mean(losses))), llamacpp.perplexity(gguf, text, CHUNK, CHUNKS)
    return abs(ours / theirs - 1) <= PERPLEXITY, f"ours {ours:.4f}, llama-perplexity's {theirs:.4f}"


def tensor_types(gguf: Path) -> dict[str, object]:
    """`types`: how many tensors of a GGUF are of each type; `fallback`: how many matrices have rows that do not divide
    by 256, for which the quantizer takes a type of smaller blocks.
    """
    tensors = GGUFReader(gguf).tensors
    names = [tensor.tensor_type.name for tensor in tensors]
    fallback = sum(len(tensor.shape) > 1 and int(tensor.shape[0]) % 256 != 0 for tensor in tensors)
    return {"types": {name: names.count(name) for name in sorted(set(names))}, "fallback": fallback}


def _none_of(different: list[str], count: int, what: str) -> Check:
    return not different, f"{len(different)} of {count} {what} differ" + (
        f", e.g. {different[0]!r}" if different else ""
    )


def _post(address: str, value: dict) -> dict:
    data, kind = json.dumps(value).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(address, data, kind), timeout=60) as answer:
        return json.load(answer)
