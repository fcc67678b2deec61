"""Small bases as others publish them: a Llama of random weights with a tokenizer of each kind."""

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM

from stages.lib.base import scratch
from stages.lib.base.byte_level import LLAMA3, SMOLLM, tokenizer_of
from stages.lib.core.files import write_json
from support.sample import conversations

VOCABULARY = 600
LLAMA3_ROPE = {  # Llama-3.2's
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SPECIAL = {LLAMA3: (scratch.BOS, scratch.EOS), SMOLLM: ("<|im_start|>", "<|im_end|>")}  # BOS and EOS


@cache
def tokenizer(kind: str) -> Tokenizer:
    """Llama-3's layout, its BOS in front; or SmolLM2's, its markers the first of its tokens and no BOS in front."""
    texts = [scratch.plain_text(row["messages"]) for row in conversations(60)]
    if kind == LLAMA3:
        return scratch.train_tokenizer(texts, VOCABULARY)
    smollm = tokenizer_of(SMOLLM, {}, [])
    special, alphabet = ["<|endoftext|>", *SPECIAL[SMOLLM]], sorted(ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    smollm.train_from_iterator(texts, trainer)
    return smollm


def llama(folder: Path, kind: str = LLAMA3, shard: str = "1GB", **changes) -> Path:
    """A model folder, its weights such as float16 and bfloat16 both hold; `changes` are to its config."""
    words, (bos, eos) = tokenizer(kind), SPECIAL[kind]
    config = {
        "vocab_size": words.get_vocab_size(),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "tie_word_embeddings": False,
        "bos_token_id": words.token_to_id(bos),
        "eos_token_id": words.token_to_id(eos),
    }
    torch.manual_seed(11)
    model = LlamaForCausalLM(LlamaConfig(**config | changes)).bfloat16()
    for weight in model.parameters():
        weight.data = (64 * torch.randn(weight.shape)).round().clamp(-255, 255).bfloat16() / 256
    model.save_pretrained(folder, max_shard_size=shard)
    words.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"bos_token": bos, "eos_token": eos})
    return folder
