"""The memory of training, estimated and counted: `python -m bench.memory`.

Small models are really trained, on the CPU. Llama-3-8B is simulated: the same code runs on fake tensors, which have
shapes but no values, along the paths that a GPU takes.
"""

import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
import weakref
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import bitsandbytes as bnb
import torch
from bitsandbytes.autograd import _functions as bnb_functions
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from bench.fake_gpu import INSIDE, fake_model, fused_dropout, on_every_token
from bench.measuring import GIVE_BACK, forget_peak, resident
from bench.steps import section
from stages.lib.core.files import write_json
from stages.lib.settings.train import Launch, Lora, Train
from stages.lib.training import adapters
from stages.lib.training.attention import boundaries
from stages.lib.training.memory_estimate import estimate
from stages.lib.training.trainer import arguments, model_of

RESULT = Path(__file__).with_suffix(".json")
ON_THE_CPU = GIVE_BACK | {"CUDA_VISIBLE_DEVICES": ""}  # whose memory is counted, whatever the machine has
GIB = 1 << 30
TRAINED_IDS = [100, 101]  # vocabulary rows, as many as a chat template adds
LLAMA_3_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
              "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": False}  # fmt: skip
WIDE = LLAMA_3_8B | {"hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 2,
                     "num_attention_heads": 8, "num_key_value_heads": 2}  # fmt: skip
SMALL = WIDE | {"vocab_size": 16_384}  # the layers matter more than the vocabulary
BASES = {"8B": LLAMA_3_8B, "wide": WIDE, "small": SMALL}


class Case(NamedTuple):
    """A training: its base, and how conf/train/METHOD.yaml is changed; `tokens` of a packed sequence."""

    base: str
    method: str
    tokens: int
    checkpointing: bool
    dropout: float
    precision: str


CASES = [
    Case(*case)
    for case in (
        ("small", "lora", 512, False, 0.0, "bf16"),
        ("small", "lora", 512, False, 0.05, "bf16"),
        ("small", "lora", 512, False, 0.05, "fp32"),
        ("small", "lora", 2048, True, 0.05, "bf16"),
        ("wide", "lora", 512, True, 0.0, "bf16"),
        ("small", "lora-8bit", 512, False, 0.0, "bf16"),
        ("small", "lora-8bit", 512, True, 0.05, "bf16"),
        ("small", "qlora", 512, False, 0.05, "bf16"),
        ("small", "qlora", 512, True, 0.0, "bf16"),
        ("small", "dora", 512, False, 0.05, "bf16"),
        ("small", "full", 512, False, 0.0, "bf16"),
        ("small", "full", 512, True, 0.0, "bf16"),
        *(
            ("8B", method, tokens, True, 0.05, "bf16")
            for tokens in (512, 2048)
            for method in ("lora", "lora-8bit", "qlora")
        ),
    )
]


def main() -> None:
    """Run each case in a process of its own and print, in GiB, what was estimated beside what was counted."""
    results = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            if case.base != "8B":
                LlamaForCausalLM(LlamaConfig(**BASES[case.base])).to(torch.bfloat16).save_pretrained(folder)
            command = [sys.executable, "-m", "bench.memory", json.dumps(case), folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | ON_THE_CPU)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    write_json(RESULT, results)
    parts = list(results[0]["estimate"])
    print(f"| case | {' | '.join(parts)} | counted | estimate / counted | resident |")
    print("|---" * (len(parts) + 4) + "|")
    for result in results:
        sizes = " | ".join(f"{size / GIB:.2f}" for size in result["estimate"].values())
        resident = f"{result['resident'] / GIB:.2f}" if result["resident"] else "simulated"
        ratio = result["estimate"]["total"] / result["counted"]
        print(f"| {result['case']} | {sizes} | {result['counted'] / GIB:.2f} | {ratio:.3f} | {resident} |")


def one(case: Case, folder: Path) -> dict:
    """Estimate (by part), counted peak and growth of the resident memory (0: simulated) of one case; bytes."""
    gpu = case.base == "8B"
    config = BASES[case.base]
    train = settings(case, gpu)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a line for each product that casts its input
    forget_peak()
    before = resident()
    peak = simulated(config, train) if gpu else counted(config, train, folder)
    grown = resident() - before
    extras = [case.precision]
    if case.checkpointing:
        extras.append("checkpointed")
    if case.dropout:
        extras.append(f"dropout {case.dropout}")
    return {
        "case": ", ".join([f"{case.base} {case.method}", f"2 sequences of {case.tokens}", *extras]),
        "estimate": estimate(config, train, gpu),
        "counted": peak,
        "resident": 0 if gpu else grown,
    }


class Counter(TorchDispatchMode):
    """Counts the bytes of all tensors that live on the CPU, `live` and `peak`, from those there at its start.

    What an operator takes and gives back inside is not seen, unless `inside` names it: a function of its
    arguments for each such operator.
    """

    def __init__(self, inside: dict | None = None) -> None:
        super().__init__()
        self.inside, self.live, self.peak, self.known = inside or {}, 0, 0, {}
        for thing in gc.get_objects():
            if issubclass(type(thing), torch.Tensor):
                self.add(thing)

    def add(self, tensor: torch.Tensor) -> None:
        """Count the bytes that a tensor has, once for all that share them."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.known:
            gone = partial(self.remove, storage._cdata, storage.nbytes())
            self.known[storage._cdata] = weakref.ref(storage, gone)
            self.live += storage.nbytes()

    def remove(self, key: int, size: int, _) -> None:
        """Bytes are gone."""
        self.live -= size
        del self.known[key]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = on_every_token(func, args) if FakeTensor in types else NotImplemented
        out = func(*args, **kwargs or {}) if out is NotImplemented else out
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor)
        inside = self.inside[func](*args) if func in self.inside else 0
        self.peak = max(self.peak, self.live + inside)
        return out


def settings(case: Case, gpu: bool) -> Train:
    """Settings as in conf/experiment/chatdoctor-8b.yaml, with micro-batches of 2 packed sequences."""
    values = section(case.method, max_length=case.tokens, gradient_checkpointing=case.checkpointing)
    values |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 16}
    values |= {"precision": case.precision, "attention": "documents"}
    values["lora"] = Lora(r=64, lora_alpha=128, lora_dropout=case.dropout, target_modules="all-linear")
    values["launch"] = Launch(**values["launch"])
    if not gpu:
        values["optim"] = values["optim"].removeprefix("paged_")
    return Train(**values)


def batch(train: Train, vocab_size: int) -> dict:
    """Random tokens in sequences full of documents of 256 tokens, laid end to end (`trainer.collate`); all labelled."""
    tokens = train.per_device_train_batch_size * train.max_length
    ids = torch.randint(vocab_size, (1, tokens))
    positions = torch.arange(tokens)[None] % 256
    return {"input_ids": ids, "labels": ids, "position_ids": positions} | boundaries(positions)


def as_the_trainer_has_it(folder: Path, train: Train) -> torch.nn.Module:
    """The model that `finetune` makes, in train mode and checkpointed where the settings say so."""
    model = model_of(train, TRAINED_IDS, 1, folder)
    if train.gradient_checkpointing:
        how = arguments(train, Path(), seed=1).activation_checkpointing_kwargs
        model.activation_checkpointing_enable(how)
    return model.train()


def optimizer_of(model: torch.nn.Module, train: Train) -> torch.optim.Optimizer:
    """The optimiser; on fake tensors, bitsandbytes' only as what its states take on the GPU, made by the first step."""
    learning = [p for p in model.parameters() if p.requires_grad]
    if train.optim == "adamw_torch_fused":
        return torch.optim.AdamW(learning, fused=True)
    if not isinstance(learning[0], FakeTensor):
        return bnb.optim.AdamW8bit(learning)
    optimizer = torch.optim.AdamW(learning)

    def step():
        for p in learning:
            if not optimizer.state[p]:
                paged = train.optim.startswith("paged") and p.numel() >= 1e5  # on the GPU only while there is room
                moments = {} if paged else {i: torch.empty(p.numel(), dtype=torch.uint8) for i in range(2)}
                optimizer.state[p] = moments | {i: torch.empty(p.numel() // 256) for i in (2, 3)}

    optimizer.step = step
    return optimizer


def optimiser_steps(model: torch.nn.Module, train: Train, line: dict) -> None:
    """Steps as the trainer makes them: one that makes the optimiser's states, and one in which two batches accumulate.

    A third batch would add no memory.
    """
    optimizer = optimizer_of(model, train)
    learning = optimizer.param_groups[0]["params"]
    for batches in (1, min(2, train.gradient_accumulation_steps)):
        for _ in range(batches):
            with torch.autocast("cpu", torch.bfloat16, enabled=train.precision == "bf16"):
                loss = model(**line, num_items_in_batch=line["labels"].numel()).loss
            loss.backward()
            del loss
        torch.nn.utils.clip_grad_norm_(learning, train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()


def counted(config: dict, train: Train, folder: Path) -> int:
    """Peak bytes of tensors while the model in `folder` is really trained on the CPU.

    From the allocator, so that what operators take inside is counted.
    """
    model, line = as_the_trainer_has_it(folder, train), batch(train, config["vocab_size"])
    gc.collect()
    start = Counter().live
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        optimiser_steps(model, train, line)
    moves = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = start
    for move in moves:
        live += move
        peak = max(peak, live)
    return peak


def simulated(config: dict, train: Train) -> int:
    """Peak bytes of tensors of the same training on fake tensors, along a GPU's paths."""
    line = batch(train, config["vocab_size"])
    with ExitStack() as stack:
        stack.enter_context(patch.object(FakeTensor, "is_cuda", True, create=True))  # attention.documents
        stack.enter_context(patch.object(torch.nn.functional, "dropout", fused_dropout))
        stack.enter_context(patch.object(bnb_functions, "MatMul8bitFp", bnb_functions.MatMul8bitLt))
        stack.enter_context(patch.object(adapters, "load_model", partial(fake_model, config)))
        stack.enter_context(patch.object(torch.nn.Module, "to", lambda module, *_, **__: module))  # as it is already
        mode = stack.enter_context(FakeTensorMode())
        line = {k: mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for k, v in line.items()}
        model = as_the_trainer_has_it(None, train)
        gc.collect()
        with Counter(INSIDE) as counter:
            optimiser_steps(model, train, line)
    return counter.peak


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(one(Case(*json.loads(sys.argv[1])), Path(sys.argv[2]))))
    else:
        main()
