"""A GGUF as evaluation and chat see it: token ids in, log-probabilities and ids out, by llama.cpp's library."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from stages.lib import llamacpp
from stages.lib.errors import UserError
from stages.lib.perplexity import log_softmax


@cache
def binding():
    """llama-cpp-python's low-level module with the libraries of our own build, its log silenced."""
    os.environ["LLAMA_CPP_LIB_PATH"] = str(llamacpp.library_path())
    from llama_cpp import llama_cpp

    llama_cpp.silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(llama_cpp.silence, None)  # C holds no reference: the module must
    llama_cpp.llama_backend_init()
    return llama_cpp


class GgufModel:
    """A loaded GGUF. Same methods as `stages.lib.transformers_model.TransformersModel`; owns C memory."""

    def __init__(self, path: Path, context: int, threads: int | None = None) -> None:
        """Load a GGUF with a window of `context` tokens; raises UserError where it is missing or unreadable."""
        self.path, self.context = path, context
        if not path.is_file():
            raise UserError(f"{path}: no such file; build it with `dvc repro`, or fetch it with `dvc pull`")
        self.c = binding()
        model_params = self.c.llama_model_default_params()
        self.model = self.c.llama_model_load_from_file(str(path).encode(), model_params)
        if not self.model:
            raise UserError(
                f"{path}: llama.cpp cannot read it as a GGUF; build it anew with `dvc repro --force convert`"
            )
        params = self.c.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = context
        params.n_threads = params.n_threads_batch = threads or os.cpu_count()
        self.context_pointer = self.c.llama_init_from_model(self.model, params)
        self.vocab = self.c.llama_model_get_vocab(self.model)
        self.vocab_size = self.c.llama_vocab_n_tokens(self.vocab)
        self.batch = self.c.llama_batch_init(context, 0, 1)

    def close(self) -> None:
        """Give the C memory back."""
        self.c.llama_batch_free(self.batch)
        self.c.llama_free(self.context_pointer)
        self.c.llama_model_free(self.model)

    def answer_logprobs(self, prompt: list[int], answers: list[list[int]]) -> list[np.ndarray]:
        """Natural log-probability of every token of each answer after the prompt; float64, one array an answer.

        The prompt is read once; each answer is forgotten before the next one.
        """
        self._start()
        self._decode(prompt, 0, every=False)
        first = log_softmax(self._logits(len(prompt) - 1))
        scored = []
        for answer in answers:
            self.c.llama_memory_seq_rm(self._memory(), 0, len(prompt), -1)
            later = answer[:-1]
            if later:
                self._decode(later, len(prompt), every=True)
            rest = [log_softmax(self._logits(i))[token] for i, token in enumerate(answer[1:])]
            scored.append(np.array([first[answer[0]], *rest]))
        return scored

    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits after each of the tokens, float32, shape (tokens, words)."""
        self._start()
        self._decode(ids, 0, every=True)
        return np.stack([self._logits(i) for i in range(len(ids))])

    def generate(self, ids: list[int], max_new_tokens: int, stop_ids: set[int]) -> Iterator[int]:
        """Greedy continuation, token by token; ends before a stop token."""
        self._start()
        self._decode(ids, 0, every=False)
        at = len(ids)
        token = int(self._logits(at - 1).argmax())
        for _ in range(max_new_tokens):
            if token in stop_ids:
                return
            yield token
            self._decode([token], at, every=False)
            token, at = int(self._logits(0).argmax()), at + 1

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Token ids of a text without BOS; `special` decides whether it may spell control tokens."""
        data = text.encode()
        buffer = (self.c.llama_token * (len(data) + 8))()
        count = self.c.llama_tokenize(self.vocab, data, len(data), buffer, len(buffer), False, special)
        return list(buffer[:count])

    def _start(self) -> None:
        self.c.llama_memory_clear(self._memory(), True)

    def _memory(self):
        return self.c.llama_get_memory(self.context_pointer)

    def _decode(self, ids: list[int], start: int, every: bool) -> None:
        """Feed ids at positions from `start`; logits are kept for all of them, or for the last only."""
        if start + len(ids) > self.context:
            raise UserError(
                f"{self.path}: {start + len(ids)} tokens exceed the context of {self.context}; "
                "raise evaluate.measure.context"
            )
        batch, last = self.batch, len(ids) - 1
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i] = token, start + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = every or i == last
        status = self.c.llama_decode(self.context_pointer, batch)
        if status:
            raise RuntimeError(f"{self.path}: llama_decode failed with status {status} on {len(ids)} tokens")

    def _logits(self, i: int) -> np.ndarray:
        pointer = self.c.llama_get_logits_ith(self.context_pointer, i)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))
