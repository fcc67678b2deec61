"""A transformers model as evaluation and chat see it: token ids in, log-probabilities and ids out."""

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import Cache

from stages.lib.core.files import read_json
from stages.lib.evaluation.engines.logits import scored_tokens
from stages.lib.evaluation.engines.reply import Known, Reply, follow
from stages.lib.evaluation.engines.text import BATCH_TOKENS, ROWS, Text
from stages.lib.model import widening
from stages.lib.model.allocator import keep_freed_memory
from stages.lib.model.device import free_memory, require_free
from stages.lib.model.inference_memory import beside_weights
from stages.lib.model.loading import load_model, load_tuned


class Prefilled(NamedTuple):
    """A batch of prompts that was read."""

    cache: Cache  # keys and values of every layer
    mask: torch.Tensor  # (prompts, longest): 1 for a token of the prompt, 0 for the padding at its right
    next_logits: torch.Tensor  # (prompts, vocabulary), after the last token of each


class TransformersModel:
    """Same methods as `GgufModel`."""

    def __init__(
        self,
        folder: Path,
        adapter: Path | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        tokens: int = BATCH_TOKENS,
    ) -> None:
        """The model of a folder, with what was trained laid over it where `adapter` is given.

        `dtype` is that of its products, float16 or float32; where float32 weights do not fit into the device's memory,
        they stay in 16 bits and are widened as they are multiplied, to the same results. `tokens`: of a batch, at most.
        Raises UserError where the device has no room for it.
        """
        self.path = adapter or folder
        self.device = device
        self.tokens = tokens
        keep_freed_memory()
        widened = _must_widen(folder, device, dtype, tokens)
        kept = torch.float16 if widened else dtype
        loaded = load_tuned(folder, adapter, kept, device) if adapter else load_model(folder, kept, device=device)
        self.model: Any = loaded
        self.scored = scored_tokens(self.model.config.vocab_size)
        if widened:
            widening.widen(loaded)
            self.tokens, self.scored = min(tokens, widening.TOKENS), min(self.scored, widening.SCORED)

    def close(self) -> None:
        """Give its memory back, on a GPU to other libraries too."""
        del self.model
        gc.collect()  # else a reference cycle could keep it
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def fits(self, texts: list[Text]) -> bool:
        """Whether these texts can be asked together: each answer has its prompt's keys and values for itself."""
        rows = sum(text.rows for text in texts)
        answer = max(max(text.answers, default=0) for text in texts)
        width = max(text.prompt for text in texts) + max(answer, max(text.generated for text in texts))
        return rows <= ROWS and rows * width <= self.tokens

    @torch.inference_mode()
    def ask(
        self, prompts: list[list[int]], answers: list[list[list[int]]], max_new_tokens: int, stop_ids: set[int]
    ) -> list[Reply]:
        """Natural log-probability of every token of each answer after its prompt, and the greedy answer.

        The prompts are one batch, each is read once; its keys and values are repeated for each of its answers. A greedy
        answer goes on where it leaves the given one that it follows.
        """
        read = self._prefill(prompts)
        logprobs: list[list[np.ndarray]] = [[] for _ in prompts]
        said: list[list[int]] = [[] for _ in prompts]
        tokens = read.next_logits.argmax(-1).tolist()
        cache, mask = read.cache, read.mask
        if any(answers):
            logprobs, known, mask = self._score(read, answers, stop_ids)
            said = [one.ids[:max_new_tokens] for one in known]
            tokens = [one.token for one in known]
        left = [max_new_tokens - len(ids) for ids in said]
        for number, token in self._extend(cache, mask, tokens, left, stop_ids):
            said[number].append(token)
        return [Reply(*reply) for reply in zip(logprobs, said, strict=True)]

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits after each of the tokens, float32, shape (tokens, vocabulary)."""
        return self.model(input_ids=torch.tensor([ids], device=self.device)).logits[0].float().cpu().numpy()

    @torch.inference_mode()
    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: set[int]) -> Iterator[tuple[int, int]]:
        """Greedy continuations of one batch of prompts, as they are decoded: (number of the prompt, id).

        Each ends before a stop token; the others go on without it.
        """
        read = self._prefill(prompts)
        tokens = read.next_logits.argmax(-1).tolist()
        yield from self._extend(read.cache, read.mask, tokens, [max_new_tokens] * len(prompts), stop_ids)

    def _score(
        self, read: Prefilled, answers: list[list[list[int]]], stop_ids: set[int]
    ) -> tuple[list[list[np.ndarray]], list[Known], torch.Tensor]:
        """Log-probabilities of the answers; how far greedy answers follow them; and the mask, as far as these do.

        The cache then has one row a prompt: of the answer that its greedy one follows.
        """
        firsts = [0, *itertools.accumulate(map(len, answers))]  # row of each prompt's first answer
        sequences = [answer for own in answers for answer in own]
        rows = torch.arange(len(answers)).repeat_interleave(torch.tensor([len(own) for own in answers]))
        begins = torch.tensor([answer[0] for answer in sequences], device=self.device)
        scored = [[one] for one in _log_probabilities(read.next_logits[rows.to(self.device)], begins)]
        likeliest: list[list[int]] = [[] for _ in sequences]
        width = read.mask.shape[1]
        read.cache.batch_select_indices(rows.to(self.device))
        mask = read.mask[rows]
        if any(len(answer) > 1 for answer in sequences):
            hidden, mask = self._decode(self._padded([answer[:-1] for answer in sequences]), read.cache, mask)
            logits = itertools.chain.from_iterable(
                map(self._head, hidden.split(max(1, self.scored // hidden.shape[1])))
            )
            likeliest = []
            for own_logits, answer, logprobs in zip(logits, sequences, scored, strict=True):
                rest = torch.tensor(answer[1:], device=self.device)
                logprobs += _log_probabilities(own_logits[: len(rest)], rest)
                likeliest.append(own_logits.argmax(-1).tolist())

        begun = read.next_logits.argmax(-1).tolist()
        known = [
            follow(token, own, likeliest[start:], stop_ids)
            for token, own, start in zip(begun, answers, firsts, strict=False)
        ]
        followed = [start + one.answer for start, one in zip(firsts, known, strict=False)]
        longest = width + max(len(one.ids) for one in known)
        read.cache.batch_select_indices(torch.tensor(followed, device=self.device))
        read.cache.crop(longest - mask.shape[1])  # what no greedy answer follows would be copied with every token
        mask = mask[followed, :longest]
        for row, one in zip(mask, known, strict=True):
            row[width + len(one.ids) :] = 0
        arrays = iter(map(np.array, scored))
        return [[next(arrays) for _ in own] for own in answers], known, mask

    def _extend(
        self, cache: Cache, mask: torch.Tensor, tokens: list[int], left: list[int], stop_ids: set[int]
    ) -> Iterator[tuple[int, int]]:
        """Greedy continuations of cached sequences, each of which goes on with its one of `tokens`: (its number, id).

        At most `left` tokens each, the first one included; each ends before a stop token.
        """
        left = list(left)
        going = list(range(len(tokens)))
        while True:
            said = [row for row, token in enumerate(tokens) if token not in stop_ids and left[going[row]]]
            for row in said:
                left[going[row]] -= 1
                yield going[row], tokens[row]
            kept = [row for row in said if left[going[row]]]
            if not kept:
                return
            if len(kept) < len(going):
                chosen = torch.tensor(kept, device=self.device)
                cache.batch_select_indices(chosen)
                mask = mask[chosen]
            going, tokens = [going[row] for row in kept], [tokens[row] for row in kept]
            hidden, mask = self._decode(self._padded([[token] for token in tokens]), cache, mask)
            tokens = self._head(hidden[:, -1]).argmax(-1).tolist()

    def _prefill(self, prompts: list[list[int]]) -> Prefilled:
        """Read a batch of prompts, padded at the right, where no token of a prompt can see it: that needs no mask."""
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        ids = self._padded(prompts)
        rows = torch.arange(len(prompts), device=self.device)
        decoder = self.model.get_decoder()
        with _last_layer_narrowed(decoder, rows, lengths - 1):
            result = decoder(input_ids=ids, use_cache=True)
        mask = (torch.arange(ids.shape[1], device=self.device) < lengths.unsqueeze(1)).long()
        last = result.last_hidden_state[rows, lengths - 1]
        return Prefilled(result.past_key_values, mask, self._head(last))

    def _decode(self, ids: torch.Tensor, cache: Cache, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states of the ids (sequences, tokens) that continue what is cached, and the mask, now longer.

        Positions go on where each prompt ended: its padding counts for none.
        """
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        positions = mask.cumsum(1)[:, -ids.shape[1] :] - 1
        decoder = self.model.get_decoder()
        result = decoder(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return result.last_hidden_state, mask

    def _head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states (…, width): (…, vocabulary)."""
        return self.model.get_output_embeddings()(hidden)

    def _padded(self, sequences: list[list[int]]) -> torch.Tensor:
        """Ids of sequences, padded at the right to the longest: (sequences, longest)."""
        longest = max(map(len, sequences))
        return torch.tensor([ids + [0] * (longest - len(ids)) for ids in sequences], device=self.device)


def _must_widen(folder: Path, device: str, dtype: torch.dtype, tokens: int) -> bool:
    """Whether the weights must stay in 16 bits although products are to be of float32.

    Raises UserError where there is no room for them even so, with a batch of so many tokens.
    """
    size = sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))
    config = read_json(folder / "config.json")
    scored = scored_tokens(config["vocab_size"])
    instead = "take another machine" if device == "cpu" else "let the CPU do it, slowly: CUDA_VISIBLE_DEVICES= in front"
    if dtype != torch.float32:
        needed = size + beside_weights(config, tokens, scored, dtype.itemsize)
        fix = f"lower evaluate.predict.batch_tokens (it is {tokens}), or {instead}"
        require_free(device, needed, f"{folder} with {tokens} tokens at a time", fix)
        return False
    if 2 * size + beside_weights(config, tokens, scored, dtype.itemsize) <= free_memory(device):
        return False
    needed = size + beside_weights(config, widening.TOKENS, widening.SCORED, dtype.itemsize)
    require_free(device, needed, f"{folder}, in 16 bits,", f"free some, or {instead}")
    return True


def _log_probabilities(logits: torch.Tensor, ids: torch.Tensor) -> list[float]:
    """Natural log-probability of one id by each row of logits, in float32."""
    wanted = logits.gather(1, ids.unsqueeze(1)).squeeze(1)
    return (wanted.float() - logits.float().logsumexp(1)).tolist()


@contextmanager
def _last_layer_narrowed(decoder: Any, rows: torch.Tensor, positions: torch.Tensor) -> Iterator[None]:
    """Within it, only the token at `positions` of each row goes through the last layer's feed-forward part.

    No later layer reads the other tokens' hidden states, so llama.cpp leaves them out too: of a prefill's products
    about 2.5 % at Llama-3-8B's shape, a fifth in a model of four layers. The feed-forward part's result is added to
    every token of the row, and is right for the one.
    """

    def narrow(_: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (arguments[0][rows, positions].unsqueeze(1),)

    hook = decoder.layers[-1].post_attention_layernorm.register_forward_pre_hook(narrow)
    try:
        yield
    finally:
        hook.remove()
