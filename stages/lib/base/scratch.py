"""A small Llama trained from scratch on plain text, so that the default run has a real base to tune."""

import itertools
import math
from collections.abc import Iterator

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from stages.lib.errors import UserError

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
# Llama-3's split pattern (its tokenizer.json, `pre_tokenizer`); llama.cpp calls it llama-bpe.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def special_tokens() -> list[str]:
    """Llama-3's 256 special tokens, in the order of their ids (its tokenizer.json, `added_tokens`)."""
    reserved = (f"<|reserved_special_token_{i}|>" for i in itertools.count())
    named = {0: BOS, 1: EOS, 6: "<|start_header_id|>", 7: "<|end_header_id|>", 9: "<|eot_id|>"}
    return [named.get(i) or next(reserved) for i in range(256)]


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE built as Llama-3's: same split pattern, one BOS in front, special tokens at the end.

    Exactly `vocab_size` entries; raises UserError where the text is too small to learn that many.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = special_tokens()
    learnt = vocab_size - len(special)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=learnt, initial_alphabet=alphabet, show_progress=False)
    )
    if tokenizer.get_vocab_size() != learnt:
        raise UserError(
            f"model.scratch.vocab_size is {vocab_size}, but the training text yields just "
            f"{tokenizer.get_vocab_size() + len(special)} tokens; use more text or a smaller vocabulary"
        )
    tokenizer.add_special_tokens(special)
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B:1", special_tokens=[(BOS, bos)]),
        ]
    )
    return tokenizer


def pretrain(
    config: LlamaConfig,
    documents: list[list[int]],
    max_length: int,
    batch_size: int,
    num_train_steps: int,
    learning_rate: float,
    seed: int,
) -> LlamaForCausalLM:
    """Train a Llama of this shape on token-id documents laid end to end; float32 weights, in eval mode."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).train()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, num_train_steps))
    progress = tqdm(
        itertools.islice(_batches(documents, max_length, batch_size, seed), num_train_steps), total=num_train_steps
    )
    for batch in progress:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        progress.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


def _batches(documents: list[list[int]], max_length: int, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless [batch_size, max_length] windows of the documents in a new order each epoch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(documents), generator=generator).tolist()
        stream = torch.tensor([token for i in order for token in documents[i]])
        rows = stream[: len(stream) // max_length * max_length].view(-1, max_length)
        if len(rows) < batch_size:
            raise UserError(
                f"the training text has {len(stream)} tokens, fewer than one batch of {batch_size} × {max_length}"
            )
        yield from rows[: len(rows) // batch_size * batch_size].split(batch_size)


def _warm_cosine(step: int, steps: int) -> float:
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
