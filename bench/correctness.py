"""Attention by document and the fused loss beside plain ones: `python -m bench.correctness SETTINGS OUT`.

On whatever device there is: a GPU has other kernels than the CPU that the tests run on.
"""

import time
from statistics import median
from unittest.mock import patch

import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from bench.base_8b import dtype, sizes
from bench.processes import Answers, asked
from stages.lib.training import loss
from stages.lib.training.attention import boundaries, documents

DOCUMENTS = (1, 93, 256, 37, 512, 129, 64, 64)  # tokens
HEADS, KEY_VALUE_HEADS, WIDTH = 32, 8, 128  # Llama-3-8B's
LABELS = 300  # no multiple of a chunk
TIMED_LABELS = {"cuda": 4096, "cpu": 512}  # on a GPU about two rows of 2,048, all labelled
CHUNKS = (128, 256, 512, 1024)  # rows of logits at a time
TRAINED_IDS = (100, 101)


def compare(answers: Answers) -> None:
    """Say how far both are off, forward and backward; then what the loss costs by the size of its chunks."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    errors = attention_errors(device)
    answers.add(f"attention by document, off from float64: {listed(errors)}", attention=errors)
    found = loss_errors(device)
    answers.add(f"fused loss, off from plain float32: {listed(found)}", loss=found)
    usual, times = loss.chunk_rows(sizes().config["vocab_size"], device == "cuda"), {}
    for rows in sorted({*CHUNKS, usual}):
        times[rows] = chunk_ms(device, rows)
        chunks = f"chunks of {rows}{', as training has it' if rows == usual else ''}"
        answers.add(f"loss of {TIMED_LABELS[device]:,} labels in {chunks}: {times[rows]:.1f} ms", loss_ms=times)


def attention_errors(device: str) -> dict[str, float]:
    """|ours - float64| / |float64| of the output and the gradients, on the same inputs."""
    tokens = sum(DOCUMENTS)
    edges = boundaries(torch.cat([torch.arange(n) for n in DOCUMENTS])[None])
    starts, longest = edges["cu_seq_lens_q"].to(device), edges["max_length_q"]
    heads = (HEADS, KEY_VALUE_HEADS, KEY_VALUE_HEADS)
    ours = query, key, value = [normal(1, n, tokens, WIDTH, device=device).requires_grad_() for n in heads]
    plain = [states.detach().double().requires_grad_() for states in ours]
    above = normal(1, tokens, HEADS, WIDTH, device=device)
    output, _ = documents(None, query, key, value, None, WIDTH**-0.5, starts, longest)
    output.backward(above)
    parts = zip(*(states.split(DOCUMENTS, dim=2) for states in plain), strict=True)
    expected = torch.cat([scaled_dot_product_attention(*p, is_causal=True, enable_gqa=True) for p in parts], 2)
    expected = expected.transpose(1, 2)
    expected.backward(above.double())
    pairs = [(output, expected), *((one.grad, other.grad) for one, other in zip(ours, plain, strict=True))]
    return dict(zip(("output", "dq", "dk", "dv"), (off(*pair) for pair in pairs), strict=True))


def loss_errors(device: str) -> dict[str, float]:
    """The same of the summed loss and its gradients by vectors and trained rows; float32 with all logits beside it."""
    hidden, weight, rows, target = loss_inputs(LABELS, device)
    row_ids = torch.tensor(TRAINED_IDS, device=device)
    target[:3] = TRAINED_IDS[0]
    ours = loss.summed_loss(hidden, weight, target, rows, row_ids)
    ours.backward()
    plain, plain_rows = hidden.detach().float().requires_grad_(), rows.detach().clone().requires_grad_()
    matrix = weight.float().index_copy(0, row_ids, plain_rows)
    expected = cross_entropy(plain @ matrix.T, target, reduction="sum")
    expected.backward()
    pairs = [(ours, expected), (hidden.grad, plain.grad), (rows.grad, plain_rows.grad)]
    return dict(zip(("loss", "d hidden", "d rows"), (off(*pair) for pair in pairs), strict=True))


def chunk_ms(device: str, rows: int) -> float:
    """Milliseconds of the loss and its gradients in chunks of so many rows; the median of five, after one."""
    hidden, weight, learnt, target = loss_inputs(TIMED_LABELS[device], device)
    row_ids, times = torch.tensor(TRAINED_IDS, device=device), []
    with patch.object(loss, "chunk_rows", lambda *_: rows):
        for _ in range(6):
            synchronize()
            start = time.perf_counter()
            loss.summed_loss(hidden, weight, target, learnt, row_ids).backward()
            synchronize()
            times.append(time.perf_counter() - start)
    return 1e3 * median(times[1:])


def loss_inputs(labels: int, device: str) -> tuple[torch.Tensor, ...]:
    """Vectors (labels, width) and an output matrix of `dtype`, two trained rows of float32, and targets."""
    config = sizes().config
    width, words = config["hidden_size"], config["vocab_size"]
    hidden = normal(labels, width, device=device).requires_grad_()
    weight = normal(words, width, device=device) / width**0.5
    rows = torch.randn(len(TRAINED_IDS), width, device=device).requires_grad_()
    return hidden, weight, rows, torch.randint(0, words, (labels,), device=device)


def normal(*shape: int, device: str) -> torch.Tensor:
    """Normal numbers in `dtype`."""
    return torch.randn(shape, device=device, dtype=dtype())


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    """|one - other| / |other|."""
    one, other = (tensor.detach().double() for tensor in (one, other))
    return float((one - other).norm() / other.norm())


def listed(errors: dict[str, float]) -> str:
    """Relative errors by what they are of."""
    return ", ".join(f"{name} {error:.1e}" for name, error in errors.items())


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    compare(asked()[1])
