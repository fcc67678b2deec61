"""What is trained: a LoRA, rsLoRA or DoRA adapter on a frozen base, or the whole model."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.dora import DoraLinearLayer
from transformers import PreTrainedModel, set_seed

from stages.lib.files import read_json, write_json
from stages.lib.models import load_model
from stages.lib.tensors import BASE, digest
from stages.lib.train_schema import Lora


def trainable(
    base: Path,
    method: str,
    quantization: str,
    precision: str,
    attention: str,
    lora: Lora,
    trained_ids: list[int],
    seed: int,
) -> PreTrainedModel | PeftModel:
    """The base, ready to be trained by `method`; `trained_ids` are the vocabulary rows that an adapter learns too.

    A frozen base has the precision's type; weights that learn are float32, and autocast multiplies them
    in the precision's type. Quantised weights are never trained.
    """
    frozen = torch.bfloat16 if precision == "bf16" and method != "full" else torch.float32
    model = load_model(base, frozen, attention, quantization)
    if method == "full":
        return model
    set_seed(seed)
    # Both matrices that know a token: the embedding reads it, lm_head predicts it.
    rows = {"embed_tokens": trained_ids, "lm_head": trained_ids} if trained_ids else None
    adapter = LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=lora.target_modules,
        trainable_token_indices=rows,
        use_rslora=method == "rslora",
        use_dora=method == "dora",
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, adapter)
    for module in peft_model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False  # autocast does it; PEFT would cast to float32 and back
        if isinstance(module, DoraLinearLayer):
            module.get_lora_weight = factors_product
    return peft_model


def factors_product(**layers) -> torch.Tensor:
    """What DoRA adds to a weight, (outputs, inputs); PEFT multiplies an identity matrix of inputs × inputs for it.

    It is only measured for its lengths, through which no gradient flows.
    """
    with torch.no_grad():
        return layers["lora_B"].weight @ layers["lora_A"].weight


def tidy(folder: Path, base: Path) -> None:
    """Leave the weights and their config of what the trainer saved, and add which base they belong to.

    The same weights give the same bytes.
    """
    for name in ("README.md", "training_args.bin"):  # an empty model card of PEFT's, paths of this machine
        (folder / name).unlink(missing_ok=True)
    settings = folder / "adapter_config.json"
    if settings.is_file():
        config = read_json(settings)
        config["target_modules"] = sorted(config["target_modules"])  # PEFT writes a set, in any order
        config["base_model_name_or_path"] = None
        write_json(settings, config)
    write_json(folder / BASE, {"sha256": digest(base)})
