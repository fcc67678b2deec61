"""The plan of memory agrees with what training takes, and its refusal names settings that fit."""

import logging
import re
from dataclasses import replace

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from bench.memory import LLAMA_3_8B, counted
from stages.lib.core.errors import UserError
from stages.lib.settings.train import Launch, Lora, Train
from stages.lib.training import shapes
from stages.lib.training.memory import GIB, exhausted, needed, require
from stages.lib.training.memory_estimate import estimate
from support.settings import train_settings

TINY = LLAMA_3_8B | {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 3, "vocab_size": 1024}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2}
LORA = Lora(r=64, lora_alpha=128, lora_dropout=0.05, target_modules="all-linear")


def of_8b(**changes) -> Train:
    return train_settings(**{"lora": LORA, "max_length": 2048, "precision": "bf16", "quantization": "none"} | changes)


def named(text: str) -> dict:
    """The settings that an error names, as values."""
    return {name: yaml.safe_load(value) for name, value in re.findall(r"-S train\.(\w+)=([\w-]+)", text)}


@pytest.mark.parametrize(
    "changes",
    [{"lora": LORA, "precision": "bf16"},
     {"lora": LORA, "precision": "bf16", "gradient_checkpointing": True},
     {"quantization": "8bit", "gradient_checkpointing": True},
     {"method": "full"}],
    ids=("lora", "checkpointed", "8bit", "full"),
)  # fmt: skip
def test_the_estimate_is_within_15_percent_of_the_memory_taken(changes, tmp_path):
    LlamaForCausalLM(LlamaConfig(**TINY)).to(torch.bfloat16).save_pretrained(tmp_path)
    train = train_settings(**changes)
    assert estimate(TINY, train, gpu=False)["total"] == pytest.approx(counted(TINY, train, tmp_path), rel=0.15)


BATCH = {"per_device_train_batch_size", "gradient_accumulation_steps"}


@pytest.mark.parametrize(
    ("gib", "changes", "expected"),
    [(50, {}, {"gradient_checkpointing"}),
     (19, {}, {"gradient_checkpointing", *BATCH}),
     (15, {"gradient_checkpointing": True}, {"quantization"}),
     (12, {}, {"gradient_checkpointing", "quantization"}),
     (9, {}, {"gradient_checkpointing", "quantization", "optim", *BATCH}),
     (150, {"method": "full"}, {"gradient_checkpointing"})],
)  # fmt: skip
def test_a_training_that_does_not_fit_is_refused_with_settings_that_do(gib, changes, expected):
    train = of_8b(**changes)
    with pytest.raises(UserError, match=rf"{gib}.00 GiB are free; it fits") as refusal:
        require(LLAMA_3_8B, train, gib * GIB)
    settings = named(str(refusal.value))
    assert set(settings) == expected
    fitting = replace(train, **settings)
    require(LLAMA_3_8B, fitting, gib * GIB)
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
    assert fitting.per_device_train_batch_size * fitting.gradient_accumulation_steps == batch


def test_no_setting_that_would_be_needless_is_named():
    """The batch is halved before the base is quantised; where it must be quantised anyway, it need not be halved."""
    for gib in range(8, 56, 4):
        with pytest.raises(UserError) as refusal:
            require(LLAMA_3_8B, of_8b(), gib * GIB)
        settings = named(str(refusal.value))
        for name in settings.keys() - BATCH:
            fewer = {key: value for key, value in settings.items() if key != name}
            if "it fits" in str(refusal.value):
                assert estimate(LLAMA_3_8B, replace(of_8b(), **fewer), gpu=False)["total"] > gib * GIB


def test_where_nothing_helps_that_is_said():
    with pytest.raises(UserError, match=r"no setting fits: even with -S .* it takes .* GiB; take shorter sequences"):
        require(LLAMA_3_8B, of_8b(), 3 * GIB)


def test_ample_memory_is_only_logged(caplog):
    caplog.set_level(logging.INFO)
    require(LLAMA_3_8B, of_8b(), 100 * GIB)
    assert "of 100.00 GiB free" in caplog.text


def test_a_rank_above_the_matrix_is_refused_before_anything_else():
    lora = Lora(r=1025, lora_alpha=64, lora_dropout=0.0, target_modules="all-linear")
    with pytest.raises(
        UserError, match=r"train\.lora\.r is 1025, expected at most 1024: k_proj of this base is 1024 × 4096"
    ):
        require(LLAMA_3_8B, of_8b(lora=lora), GIB)
    shapes.check_rank(LLAMA_3_8B, replace(lora, target_modules=["q_proj", "down_proj"]))
    require(LLAMA_3_8B, of_8b(lora=lora, method="full"), 1000 * GIB)  # it has no adapter


def test_processes_on_one_machine_share_its_memory_and_fsdp_shares_the_weights():
    one, ddp, fsdp = (
        estimate(LLAMA_3_8B, of_8b(launch=Launch(strategy=name, processes=count, nodes=1, rendezvous="")), gpu=False)
        for name, count in (("single", 1), ("ddp", 2), ("fsdp", 2))
    )
    assert ddp["weights"] == 2 * one["weights"] and ddp["gradients"] == 4 * one["gradients"]
    assert one["weights"] < fsdp["weights"] < 1.2 * one["weights"] and fsdp["activations"] == 2 * one["activations"]


def test_4_bit_weights_stay_whole_under_fsdp():
    """They are no numbers that could be cut; embedding and output matrix are."""
    fsdp = Launch(strategy="fsdp", processes=2, nodes=1, rendezvous="")
    one, two = (estimate(LLAMA_3_8B, of_8b(quantization="4bit", launch=launch), gpu=True)["weights"]
                for launch in (of_8b().launch, fsdp))  # fmt: skip
    unquantized = 2 * shapes.unquantized(LLAMA_3_8B)
    assert two == one - unquantized + unquantized // 2
    with pytest.raises(UserError, match=r"train\.quantization is '8bit', expected none or 4bit where .* is fsdp"):
        of_8b(quantization="8bit", launch=fsdp)
    with pytest.raises(UserError, match="GiB are free") as refusal:
        require(LLAMA_3_8B, of_8b(launch=fsdp), 9 * GIB)
    assert named(str(refusal.value)).get("quantization") in (None, "4bit")


def test_a_gpu_has_a_margin_for_gaps_between_tensors():
    """5 % and half a GiB; with it, all three ways to hold an 8B base fit into 22 GiB."""
    for quantization in ("none", "8bit", "4bit"):
        train = of_8b(quantization=quantization, gradient_checkpointing=True)
        bare, parts = estimate(LLAMA_3_8B, train, gpu=True), needed(LLAMA_3_8B, train, gpu=True)
        assert parts["margin"] == pytest.approx(0.05 * bare["total"] + 0.5 * GIB, abs=1)
        assert parts["total"] == bare["total"] + parts["margin"] <= 22 * GIB
        assert needed(LLAMA_3_8B, train, gpu=False)["margin"] == 0


def test_memory_that_did_not_last_gives_the_advice_of_the_refusal():
    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 24 GiB"
    )
    train = of_8b(gradient_checkpointing=True)
    text = str(exhausted(LLAMA_3_8B, train, error))
    assert text.startswith("the GPU has no memory left (CUDA out of memory. Tried to allocate 2.00 GiB), though")
    fitting = needed(LLAMA_3_8B, replace(train, **named(text)), gpu=True)["total"]
    assert "it fits" in text and fitting <= 0.9 * needed(LLAMA_3_8B, train, gpu=True)["total"]


def test_paged_states_and_offloaded_activations_are_not_on_the_gpu():
    train = of_8b(gradient_checkpointing=True, optim="adamw_8bit")
    kept, paged = (estimate(LLAMA_3_8B, t, gpu=True) for t in (train, replace(train, optim="paged_adamw_8bit")))
    assert paged["optimizer"] == 0 < kept["optimizer"] == kept["total"] - paged["total"]
    offloaded = estimate(LLAMA_3_8B, replace(train, activation_offload=True), gpu=True)
    assert kept["total"] - offloaded["total"] > 0.5 * GIB
