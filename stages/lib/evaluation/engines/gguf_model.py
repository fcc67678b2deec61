"""A GGUF as evaluation and chat see it: token ids in, log-probabilities and ids out, by llama.cpp's library."""

import ctypes
import itertools
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.lib.core.errors import UserError
from stages.lib.evaluation.engines.llama_library import binding, failure
from stages.lib.evaluation.engines.logits import log_probability, scored_tokens
from stages.lib.evaluation.engines.reply import Known, Reply, follow
from stages.lib.evaluation.engines.text import BATCH_TOKENS, Text
from stages.lib.model.device import free_memory, require_free

NO_MEMORY = -2  # what llama_decode returns where it gets no memory; source: llama.cpp, src/llama-context.cpp


class Part(NamedTuple):
    """Ids of one sequence that are read next, and where in it they stand."""

    ids: list[int]
    position: int  # of the first one
    sequence: int  # its number in llama.cpp's memory of keys and values


class Place(NamedTuple):
    """Where a sequence goes on: its number, the position after what was read, and the token that comes there."""

    sequence: int
    position: int
    token: int


class GgufModel:
    """A loaded GGUF. Same methods as `TransformersModel`; owns C memory."""

    def __init__(
        self, path: Path, context: int, rows: int = 1, tokens: int = BATCH_TOKENS, adapter: Path | None = None
    ) -> None:
        """Load a GGUF with a window of `context` tokens, or of `tokens` where `rows` > 1 sequences share it.

        `adapter` is the GGUF of one, laid over it. Raises UserError where a file is missing or unreadable, or there is
        no room in memory.
        """
        self.path = path
        self.context = context
        if not path.is_file():
            raise UserError(f"{path}: no such file; build it with `dvc repro`, or fetch it with `dvc pull`")
        self.c = binding()
        model_params = self.c.llama_model_default_params()
        self.model = self.c.llama_model_load_from_file(str(path).encode(), model_params)
        if not self.model:
            fix = "build it anew with `dvc repro --force convert`"
            raise failure(path, "read it as a GGUF", fix, "free some memory, or hide the GPU: CUDA_VISIBLE_DEVICES=")
        self.vocab = self.c.llama_model_get_vocab(self.model)
        self.vocab_size = self.c.llama_vocab_n_tokens(self.vocab)
        self.rows = rows
        self.scored = scored_tokens(self.vocab_size)
        self.tokens = context if rows == 1 else max(context, tokens)
        self._require_room()
        params = self.c.llama_context_default_params()
        params.n_ctx = params.n_batch = self.tokens
        params.n_ubatch = min(self.tokens, self.scored)  # llama.cpp lays out the logits of as many tokens
        params.n_seq_max = rows
        params.kv_unified = True  # answers share their prompt's keys and values
        params.n_threads = params.n_threads_batch = os.cpu_count()
        self.context_pointer = self.c.llama_init_from_model(self.model, params)
        if not self.context_pointer:
            self.c.llama_model_free(self.model)
            raise failure(path, f"read {self.tokens} tokens at a time", self._lower(), self._lower())
        self.batch = self.c.llama_batch_init(self.tokens, 0, 1)
        if adapter:
            self._lay_over(adapter)

    def close(self) -> None:
        """Give the C memory back."""
        self.c.llama_batch_free(self.batch)
        self.c.llama_free(self.context_pointer)
        self.c.llama_model_free(self.model)

    def fits(self, texts: list[Text]) -> bool:
        """Whether these texts can be asked together: answers share their prompt's keys and values."""
        longest = max(text.tokens for text in texts)
        return sum(text.rows for text in texts) <= self.rows and len(texts) * longest <= self.tokens

    def ask(
        self, prompts: list[list[int]], answers: list[list[list[int]]], max_new_tokens: int, stop_ids: set[int]
    ) -> list[Reply]:
        """Natural log-probability of every token of each answer after its prompt, and the greedy answer.

        The prompts are one batch, each is read once; its answers share what was read. A greedy answer goes on where it
        leaves the given one that it follows.
        """
        counts = [max(1, len(own)) for own in answers]
        firsts = [0, *np.cumsum(counts).tolist()]  # sequence number of each prompt's first answer
        ends = self._prefill([Part(ids, 0, first) for ids, first in zip(prompts, firsts, strict=False)])
        begun = [int(self._logits(end).argmax()) for end in ends]
        logprobs: list[list[np.ndarray]] = [[] for _ in prompts]
        places = [Place(first, len(ids), token) for first, ids, token in zip(firsts, prompts, begun, strict=False)]
        said: list[list[int]] = [[] for _ in prompts]
        if any(answers):
            after_prompt = [
                [log_probability(self._logits(end), answer[0]) for answer in own]
                for end, own in zip(ends, answers, strict=True)
            ]
            logprobs, likeliest = self._score(places, answers, after_prompt)
            known = [follow(*one, stop_ids) for one in zip(begun, answers, likeliest, strict=True)]
            said = [one.ids[:max_new_tokens] for one in known]
            places = [self._keep(place, len(own), one) for place, own, one in zip(places, answers, known, strict=True)]
        left = [max_new_tokens - len(ids) for ids in said]
        for number, token in self._extend(places, left, stop_ids):
            said[number].append(token)
        return [Reply(*reply) for reply in zip(logprobs, said, strict=True)]

    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits after each of the tokens, float32, shape (tokens, vocabulary)."""
        self._clear()
        self._decode([Part(ids, 0, 0)], every=True)
        return np.stack([self._logits(i) for i in range(len(ids))])

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: set[int]) -> Iterator[tuple[int, int]]:
        """Greedy continuations of one batch of prompts, as they are decoded: (number of the prompt, id).

        Each ends before a stop token; the others go on without it.
        """
        ends = self._prefill([Part(ids, 0, number) for number, ids in enumerate(prompts)])
        begun = [int(self._logits(end).argmax()) for end in ends]
        places = [
            Place(number, len(ids), token) for number, (ids, token) in enumerate(zip(prompts, begun, strict=True))
        ]
        yield from self._extend(places, [max_new_tokens] * len(prompts), stop_ids)

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Token ids of a text without BOS; `special` decides whether it may spell control tokens."""
        data = text.encode()
        buffer = (self.c.llama_token * (len(data) + 8))()
        count = self.c.llama_tokenize(self.vocab, data, len(data), buffer, len(buffer), False, special)
        return list(buffer[:count])

    def vocabulary(self) -> list[str]:
        """The text of every token, as the GGUF has it."""
        get_text = self.c.llama_vocab_get_text
        return [get_text(self.vocab, i).decode(errors="replace") for i in range(self.vocab_size)]

    def _require_room(self) -> None:
        """Raise UserError where the machine has no room for keys, values and logits; a GPU's is llama.cpp's to ask.

        Linux gives memory that is not there, and kills the process that uses it.
        """
        if self.c.llama_supports_gpu_offload():
            return
        fit = max(0, bisect_right(range(self.tokens), free_memory("cpu"), key=self._window) - 1)
        what = f"{self.path} with {self.tokens} tokens at a time"
        require_free("cpu", self._window(self.tokens), what, f"{self._lower()}; about {fit} fit")

    def _window(self, tokens: int) -> int:
        """Bytes of a window: float16 keys and values, a mask of them for each token read, and float32 logits."""
        heads = self.c.llama_model_n_head(self.model)
        width = self.c.llama_model_n_embd(self.model) // heads * self.c.llama_model_n_head_kv(self.model)
        read = min(tokens, self.scored)
        return tokens * 2 * (2 * self.c.llama_model_n_layer(self.model) * width + read) + 4 * read * self.vocab_size

    def _lower(self) -> str:
        """What makes less memory enough."""
        size = "context" if self.tokens == self.context else "batch_tokens"
        size = f"evaluate.predict.{size}" if self.rows > 1 else "the context (--context, or export.verify.context)"
        return f"free some memory, or lower {size} from {self.tokens}"

    def _lay_over(self, adapter: Path) -> None:
        """Add an adapter at its own scale; the model owns it."""
        loaded = self.c.llama_adapter_lora_init(self.model, str(adapter).encode())
        if not loaded:
            raise UserError(
                f"{adapter}: llama.cpp cannot lay it over {self.path}; build it anew with `dvc repro convert`"
            )
        one = (self.c.llama_adapter_lora_p_ctypes * 1)(loaded)
        if self.c.llama_set_adapters_lora(self.context_pointer, one, 1, (ctypes.c_float * 1)(1.0)):
            raise UserError(f"{adapter}: llama.cpp did not take it as an adapter of {self.path}")

    def _score(
        self, places: list[Place], answers: list[list[list[int]]], after_prompt: list[list[float]]
    ) -> tuple[list[list[np.ndarray]], list[list[list[int]]]]:
        """Log-probabilities of the answers' tokens, and the likeliest token after each of them but the last.

        `after_prompt`: those of the first tokens.
        """
        parts = []
        for place, own in zip(places, answers, strict=True):
            for sequence, answer in enumerate(own, start=place.sequence):
                if sequence != place.sequence:
                    self.c.llama_memory_seq_cp(self._memory(), place.sequence, sequence, -1, -1)
                parts.append(Part(answer[:-1], place.position, sequence))

        logprobs: list[list[np.ndarray]] = [[] for _ in answers]
        likeliest: list[list[list[int]]] = [[] for _ in answers]
        read = self._read_one_by_one(parts)
        for number, own in enumerate(answers):
            for (_, *rest), first in zip(own, after_prompt[number], strict=True):
                logits = next(read)
                scored = [log_probability(row, token) for row, token in zip(logits, rest, strict=True)]
                logprobs[number].append(np.array([first, *scored]))
                likeliest[number].append([int(row.argmax()) for row in logits])
        return logprobs, likeliest

    def _read_one_by_one(self, parts: list[Part]) -> Iterator[list[np.ndarray]]:
        """Logits after each id of each part; read together, but for no more logits than fit into memory."""
        todo = deque(parts)
        while todo:
            group = [todo.popleft()]
            while todo and sum(len(part.ids) for part in (*group, todo[0])) <= self.scored:
                group.append(todo.popleft())
            self._decode(group, every=True)
            at = itertools.count()
            yield from ([self._logits(next(at)) for _ in part.ids] for part in group)

    def _keep(self, place: Place, answers: int, known: Known) -> Place:
        """Forget a prompt's answers but the one that its greedy answer follows, and that from where it leaves it."""
        position = place.position + len(known.ids)
        followed = place.sequence + known.answer
        for sequence in range(place.sequence, place.sequence + answers):
            self.c.llama_memory_seq_rm(self._memory(), sequence, position if sequence == followed else -1, -1)
        return Place(followed, position, known.token)

    def _extend(self, places: list[Place], left: list[int], stop_ids: set[int]) -> Iterator[tuple[int, int]]:
        """Greedy continuations of sequences from their places on, at most `left` tokens each: (number, id).

        Each ends before a stop token; the others go on without it.
        """
        left = list(left)
        going = dict(enumerate(places))
        while True:
            going = {i: place for i, place in going.items() if place.token not in stop_ids and left[i]}
            for i, place in going.items():
                left[i] -= 1
                yield i, place.token
            going = {i: place for i, place in going.items() if left[i]}
            if not going:
                return
            self._decode([Part([one.token], one.position, one.sequence) for one in going.values()], every=False)
            chosen = [int(self._logits(at).argmax()) for at in range(len(going))]
            going = {
                i: Place(place.sequence, place.position + 1, token)
                for (i, place), token in zip(going.items(), chosen, strict=True)
            }

    def _prefill(self, prompts: list[Part]) -> list[int]:
        """Read a batch of prompts into empty memory; where in the batch the logits after each are."""
        self._clear()
        self._decode(prompts, every=False)
        return (np.cumsum([len(part.ids) for part in prompts]) - 1).tolist()

    def _clear(self) -> None:
        self.c.llama_memory_clear(self._memory(), True)

    def _memory(self) -> Any:
        return self.c.llama_get_memory(self.context_pointer)

    def _decode(self, parts: list[Part], every: bool) -> None:
        """Read parts of sequences as one batch; logits are kept of all their ids, or of the last of each.

        The parts lie one behind the other in the batch, and so do their logits. Raises UserError where they exceed
        the context.
        """
        total = sum(len(part.ids) for part in parts)
        longest = max(part.position + len(part.ids) for part in parts)
        if longest > self.context or total > self.tokens:
            raise UserError(
                f"{self.path}: {max(longest, total)} tokens exceed the context of {self.context}; "
                "raise evaluate.predict.context, or export.verify.context where verify says so"
            )
        if not total:
            return
        batch = self.batch
        batch.n_tokens = total
        at = 0
        for part in parts:
            last = len(part.ids) - 1
            for i, token in enumerate(part.ids):
                batch.token[at] = token
                batch.pos[at] = part.position + i
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = part.sequence
                batch.logits[at] = every or i == last
                at += 1
        status = self.c.llama_decode(self.context_pointer, batch)
        if status == NO_MEMORY:
            raise failure(self.path, f"read {total} tokens at a time", self._lower(), self._lower())
        if status:
            raise RuntimeError(f"{self.path}: llama_decode failed with status {status} on {total} tokens")

    def _logits(self, i: int) -> np.ndarray:
        pointer = self.c.llama_get_logits_ith(self.context_pointer, i)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))
