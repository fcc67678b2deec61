"""A small Llama trained from scratch on plain text, so that the default run has a real base to tune."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from stages.lib.base.byte_level import LLAMA3, put_in_front, tokenizer_of
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_jsonl, write_json
from stages.lib.settings.model import Scratch

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"


def from_scratch(shape: Scratch, train: Path, folder: Path, seed: int) -> None:
    """Train tokenizer and model on the plain text of the training dialogues; bfloat16 weights, as Llama-3's.

    Raises OSError where they cannot be written.
    """
    texts = [plain_text(row["messages"]) for _, row in read_jsonl(train)]
    tokenizer = train_tokenizer(texts, shape.vocab_size)
    bos = _id_of(tokenizer, BOS)
    eos = _id_of(tokenizer, EOS)
    config = LlamaConfig(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        vocab_size=shape.vocab_size,
        max_position_embeddings=shape.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=False,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    documents = [[*encoding.ids, eos] for encoding in tokenizer.encode_batch(texts)]
    model = pretrain(config, documents, shape, seed)
    try:
        model.bfloat16().save_pretrained(folder)
    except SafetensorError as error:  # a full disk, as safetensors says it
        raise OSError(f"{folder} not written: {error}") from error
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"bos_token": BOS, "model_max_length": shape.max_position_embeddings})


def plain_text(messages: list[dict]) -> str:
    """A dialogue as a book would print it, without any marker."""
    return "\n\n".join(message["content"] for message in messages if message["role"] != "system")


def special_tokens() -> list[str]:
    """Llama-3's 256 special tokens, in the order of their ids (its tokenizer.json, `added_tokens`)."""
    reserved = (f"<|reserved_special_token_{i}|>" for i in itertools.count())
    named = {0: BOS, 1: EOS, 6: "<|start_header_id|>", 7: "<|end_header_id|>", 9: "<|eot_id|>"}
    return [named.get(i) or next(reserved) for i in range(256)]


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE built as Llama-3's: same split pattern, one BOS in front, special tokens at the end.

    Exactly `vocab_size` entries; raises UserError where the text is too small to learn that many.
    """
    tokenizer = tokenizer_of(LLAMA3, {}, [])
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
    put_in_front(tokenizer, BOS)
    return tokenizer


def _id_of(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise RuntimeError(f"the tokenizer has no {token}")
    return found


def pretrain(config: LlamaConfig, documents: list[list[int]], shape: Scratch, seed: int) -> LlamaForCausalLM:
    """Train a Llama of this config on token-id documents laid end to end; float32 weights, in eval mode."""
    steps = shape.num_train_steps
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).train()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=shape.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, steps))
    batches = _batches(documents, shape.max_length, shape.batch_size, seed)
    progress = tqdm(itertools.islice(batches, steps), total=steps, desc="pretrain", unit="step")
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
