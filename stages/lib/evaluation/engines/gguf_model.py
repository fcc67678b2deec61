"""A GGUF as evaluation and chat see it: token ids in, log-probabilities and ids out, by llama.cpp's library."""

import os
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.lib.core.errors import UserError
from stages.lib.evaluation.engines.logits import batch_tokens, log_softmax
from stages.lib.export import llamacpp


class Part(NamedTuple):
    """Ids of one sequence that are read next, and where in it they stand."""

    ids: list[int]
    position: int  # of the first one
    sequence: int  # its number in llama.cpp's memory of keys and values


@cache
def binding() -> Any:
    """llama-cpp-python's low-level module with the libraries of our own build, its log silenced."""
    os.environ["LLAMA_CPP_LIB_PATH"] = str(llamacpp.library_path())
    module: Any = import_module("llama_cpp.llama_cpp")
    module.silence = module.llama_log_callback(lambda level, text, data: None)
    module.llama_log_set(module.silence, None)  # C holds no reference: the module must
    module.llama_backend_init()
    return module


class GgufModel:
    """A loaded GGUF. Same methods as `TransformersModel`; owns C memory."""

    def __init__(self, path: Path, context: int, threads: int | None = None, rows: int = 1) -> None:
        """Load a GGUF with a window of `context` tokens, or of `batch_tokens` where `rows` > 1 sequences share it.

        Raises UserError where it is missing or unreadable.
        """
        self.path = path
        self.context = context
        if not path.is_file():
            raise UserError(f"{path}: no such file; build it with `dvc repro`, or fetch it with `dvc pull`")
        self.c = binding()
        model_params = self.c.llama_model_default_params()
        self.model = self.c.llama_model_load_from_file(str(path).encode(), model_params)
        if not self.model:
            raise UserError(
                f"{path}: llama.cpp cannot read it as a GGUF; build it anew with `dvc repro --force convert`"
            )
        self.vocab = self.c.llama_model_get_vocab(self.model)
        self.vocab_size = self.c.llama_vocab_n_tokens(self.vocab)
        self.rows = rows
        self.tokens = context if rows == 1 else max(context, batch_tokens(self.vocab_size))
        params = self.c.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.tokens
        params.n_seq_max = rows
        params.kv_unified = True  # answers share their prompt's keys and values
        params.n_threads = params.n_threads_batch = threads or os.cpu_count()
        self.context_pointer = self.c.llama_init_from_model(self.model, params)
        self.batch = self.c.llama_batch_init(self.tokens, 0, 1)

    def close(self) -> None:
        """Give the C memory back."""
        self.c.llama_batch_free(self.batch)
        self.c.llama_free(self.context_pointer)
        self.c.llama_model_free(self.model)

    def answer_logprobs(self, prompts: list[list[int]], answers: list[list[list[int]]]) -> list[list[np.ndarray]]:
        """Natural log-probability of every token of each answer after its prompt; float64, one array an answer.

        The prompts are one batch, each is read once; its answers share what was read.
        """
        firsts = [0, *np.cumsum([len(own) for own in answers]).tolist()]  # sequence number of each first answer
        ends = self._prefill([Part(ids, 0, first) for ids, first in zip(prompts, firsts, strict=False)])
        after_prompt = [log_softmax(self._logits(end)) for end in ends]

        parts = []
        for ids, own, first in zip(prompts, answers, firsts, strict=False):
            for sequence, answer in enumerate(own, start=first):
                if sequence != first:
                    self.c.llama_memory_seq_cp(self._memory(), first, sequence, -1, -1)
                parts.append(Part(answer[:-1], len(ids), sequence))
        self._decode(parts, every=True)

        scored = []
        at = 0
        for own, first_logprobs in zip(answers, after_prompt, strict=True):
            arrays = []
            for first_token, *rest in own:
                logprobs = [log_softmax(self._logits(at + k))[token] for k, token in enumerate(rest)]
                arrays.append(np.array([first_logprobs[first_token], *logprobs]))
                at += len(rest)
            scored.append(arrays)
        return scored

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
        logits_of = dict(enumerate(ends))  # number of a prompt -> where in the last batch its logits are
        for new in range(max_new_tokens):
            chosen = {number: int(self._logits(at).argmax()) for number, at in logits_of.items()}
            going = {number: token for number, token in chosen.items() if token not in stop_ids}
            yield from going.items()
            if not going:
                return
            parts = [Part([token], len(prompts[number]) + new, number) for number, token in going.items()]
            self._decode(parts, every=False)
            logits_of = {number: at for at, number in enumerate(going)}

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
        if status:
            raise RuntimeError(f"{self.path}: llama_decode failed with status {status} on {total} tokens")

    def _logits(self, i: int) -> np.ndarray:
        pointer = self.c.llama_get_logits_ith(self.context_pointer, i)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))
