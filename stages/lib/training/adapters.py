"""What is trained: a LoRA, rsLoRA or DoRA adapter on a frozen base, or the whole model."""

from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.dora import DoraLinearLayer
from transformers import LlamaForCausalLM, set_seed

from stages.lib.core.files import read_json, write_json
from stages.lib.model.loading import load_model
from stages.lib.model.weights import BASE, digest
from stages.lib.settings.train import Train
from stages.lib.training.packed_llama import PackedLlama, TrainedRows


def trainable(base: Path, train: Train, trained_ids: list[int], seed: int) -> PackedLlama | PeftModel:
    """The base, ready to be trained by `train.method`; `trained_ids` are the tokens whose rows an adapter learns too.

    A frozen base has the precision's type; trainable parameters are float32, and autocast multiplies them
    in the precision's type. Quantised weights are never trained.
    """
    frozen = torch.bfloat16 if train.precision == "bf16" and train.method != "full" else torch.float32
    # Sharded weights are put together on the CPU; quantised ones are whole on each GPU.
    whole = train.quantization != "none" or train.launch.strategy != "fsdp"
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() and whole else "cpu"
    loaded = load_model(base, frozen, train.attention, train.quantization, PackedLlama, device)
    model = cast(PackedLlama, loaded)
    if train.method == "full":
        return model
    set_seed(seed)
    peft_model = get_peft_model(model, lora_config(train, trained_ids))
    if trained_ids:
        model.lm_head = TrainedRows(model.lm_head)
    for module in peft_model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False  # autocast does it; PEFT would cast to float32 and back
        if isinstance(module, DoraLinearLayer):
            module.get_lora_weight = factors_product
    return peft_model


def lora_config(train: Train, trained_ids: list[int]) -> LoraConfig:
    """The adapter as PEFT describes it."""
    # Both matrices that know a token: the embedding reads it, lm_head predicts it.
    rows = {"embed_tokens": trained_ids, "lm_head": trained_ids} if trained_ids else None
    return LoraConfig(
        r=train.lora.r,
        lora_alpha=train.lora.lora_alpha,
        lora_dropout=train.lora.lora_dropout,
        target_modules=train.lora.target_modules,
        trainable_token_indices=rows,
        use_rslora=train.method == "rslora",
        use_dora=train.method == "dora",
        task_type="CAUSAL_LM",
    )


def factors_product(**layers: Any) -> torch.Tensor:
    """What DoRA adds to a weight, (outputs, inputs); PEFT multiplies an identity matrix of inputs × inputs for it.

    It is only measured for its lengths, through which no gradient flows. PEFT warns of this product under FSDP, where
    a layer is called to bring its shards together; here a decoder layer is one shard group, gathered as a whole.
    """
    with torch.no_grad():
        return layers["lora_B"].weight @ layers["lora_A"].weight


def tidy(folder: Path, base: Path) -> None:
    """Leave the weights and their config of what the trainer saved, and add which base they belong to.

    The same weights give the same bytes, and a model that was trained whole is a plain Llama again.
    """
    for name in ("README.md", "training_args.bin"):  # an empty model card of PEFT's, paths of this machine
        (folder / name).unlink(missing_ok=True)
    model_config = folder / "config.json"
    if model_config.is_file():
        write_json(model_config, read_json(model_config) | {"architectures": [LlamaForCausalLM.__name__]})
    settings = folder / "adapter_config.json"
    if settings.is_file():
        config = read_json(settings)
        config["target_modules"] = sorted(config["target_modules"])  # PEFT writes a set, in any order
        config["base_model_name_or_path"] = None
        write_json(settings, config)
    write_json(folder / BASE, {"sha256": digest(base)})
