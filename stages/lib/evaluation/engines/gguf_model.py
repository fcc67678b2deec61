"""A GGUF as evaluation and chat see it: token ids in, log-probabilities and ids out, by llama.cpp's library."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from stages.lib import llamacpp
from stages.lib.errors import UserError
from stages.lib.perplexity import log_softmax

ROOM = 1 << 12  # tokens of the window that the texts of a batch share
LOGITS = 1 << 28  # numbers that the logits of a batch may take


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

    def __init__(self, path: Path, context: int, threads: int | None = None, rows: int = 1) -> None:
        """Load a GGUF with a window of `context` tokens, or of ROOM where `rows` > 1 texts are read together.

        Raises UserError where it is missing or unreadable.
        """
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
        self.vocab = self.c.llama_model_get_vocab(self.model)
        self.vocab_size = self.c.llama_vocab_n_tokens(self.vocab)
        self.rows, self.tokens = rows, context if rows == 1 else max(context, min(ROOM, LOGITS // self.vocab_size))
        params = self.c.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.tokens
        params.n_seq_max, params.kv_unified = rows, True  # texts share the window, answers their prompt's part of it
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
        scored = [[np.array([]) for _ in some] for some in answers]
        firsts = np.cumsum([0, *map(len, answers)])
        self._start()
        self._decode([(ids, 0, int(row)) for ids, row in zip(prompts, firsts, strict=False)], every=False)
        ends = np.cumsum([len(ids) for ids in prompts]) - 1
        after = [log_softmax(self._logits(int(end))) for end in ends]
        flat = []
        for i, some in enumerate(answers):
            for j, answer in enumerate(some):
                row = int(firsts[i]) + j
                if j:
                    self.c.llama_memory_seq_cp(self._memory(), int(firsts[i]), row, -1, -1)
                flat.append((answer[:-1], len(prompts[i]), row))
        self._decode(flat, every=True)
        at = 0
        for i, some in enumerate(answers):
            for j, answer in enumerate(some):
                rest = [log_softmax(self._logits(at + k))[token] for k, token in enumerate(answer[1:])]
                scored[i][j] = np.array([after[i][answer[0]], *rest])
                at += len(answer) - 1
        return scored

    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits after each of the tokens, float32, shape (tokens, words)."""
        self._start()
        self._decode([(ids, 0, 0)], every=True)
        return np.stack([self._logits(i) for i in range(len(ids))])

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: set[int]) -> Iterator[tuple[int, int]]:
        """Greedy continuations of one batch of prompts, as they come: (number of the prompt, id).

        Each ends before a stop token; the others go on without it.
        """
        self._start()
        self._decode([(ids, 0, i) for i, ids in enumerate(prompts)], every=False)
        at = [(i, int(end)) for i, end in enumerate(np.cumsum([len(ids) for ids in prompts]) - 1)]
        for new in range(max_new_tokens):
            chosen = ((i, int(self._logits(where).argmax())) for i, where in at)
            going = [(i, token) for i, token in chosen if token not in stop_ids]
            yield from going
            if not going:
                return
            self._decode([([token], len(prompts[i]) + new, i) for i, token in going], every=False)
            at = [(i, where) for where, (i, _) in enumerate(going)]

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Token ids of a text without BOS; `special` decides whether it may spell control tokens."""
        data = text.encode()
        buffer = (self.c.llama_token * (len(data) + 8))()
        count = self.c.llama_tokenize(self.vocab, data, len(data), buffer, len(buffer), False, special)
        return list(buffer[:count])

    def words(self) -> list[str]:
        """The text of every token, as the GGUF has it."""
        count = self.c.llama_vocab_n_tokens(self.vocab)
        texts = (self.c.llama_vocab_get_text(self.vocab, i).decode(errors="replace") for i in range(count))
        return list(texts)

    def _start(self) -> None:
        self.c.llama_memory_clear(self._memory(), True)

    def _memory(self):
        return self.c.llama_get_memory(self.context_pointer)

    def _decode(self, texts: list[tuple[list[int], int, int]], every: bool) -> None:
        """Feed texts as one batch: ids, the position of the first, the row; logits are kept of all ids or of the last.

        The texts lie one behind the other in the batch, and so do their logits.
        """
        lengths = [len(ids) for ids, _, _ in texts]
        total, longest = sum(lengths), max(start + len(ids) for ids, start, _ in texts)
        if longest > self.context or total > self.tokens:
            raise UserError(
                f"{self.path}: {max(longest, total)} tokens exceed the context of {self.context}; "
                "raise evaluate.measure.context"
            )
        if not total:
            return
        batch, at = self.batch, 0
        batch.n_tokens = total
        for (ids, start, row), length in zip(texts, lengths, strict=True):
            for i, token in enumerate(ids):
                batch.token[at], batch.pos[at] = token, start + i
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, row
                batch.logits[at] = every or i == length - 1
                at += 1
        status = self.c.llama_decode(self.context_pointer, batch)
        if status:
            raise RuntimeError(f"{self.path}: llama_decode failed with status {status} on {total} tokens")

    def _logits(self, i: int) -> np.ndarray:
        pointer = self.c.llama_get_logits_ith(self.context_pointer, i)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))
