"""TRL's SFTTrainer as it is best set: `python -m bench.peer_trl SETTINGS OUT` with the interpreter that has TRL 1.16.

SETTINGS is a JSON file that bench.train writes, OUT gets what `bench.steps.Clock` saw. The data set holds `input_ids` and
`labels`, a document a row, or rows already packed with `seq_lengths`, the documents' lengths; TRL then trains on the
very tokens that ours trains on.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import load_from_disk
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed
from trl import SFTConfig, SFTTrainer

from bench.steps import watch

QUANTIZED = {
    "8bit": {"load_in_8bit": True},
    "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
}


def train(settings: dict, out: Path) -> None:
    """Train a LoRA adapter for the steps that the settings ask for; nothing is evaluated or saved."""
    clock = watch(settings["cap_gib"])
    dtype = getattr(torch, settings["dtype"])
    quantized = QUANTIZED.get(settings["quantization"])
    cuda = torch.cuda.is_available()
    set_seed(settings["seed"])
    model = AutoModelForCausalLM.from_pretrained(
        settings["base"],
        dtype=dtype,
        attn_implementation=settings["attention"],
        quantization_config=BitsAndBytesConfig(**quantized, bnb_4bit_compute_dtype=dtype) if quantized else None,
        device_map={"": 0} if cuda else None,
    )
    packed = settings["packing"] != ""
    config = SFTConfig(
        output_dir=str(out.with_suffix("")),
        packing=packed,
        packing_strategy=settings["packing"] or "bfd",
        max_length=settings["max_length"],
        dataset_kwargs={"skip_prepare_dataset": settings["packed_already"]},
        per_device_train_batch_size=settings["batch"],
        gradient_accumulation_steps=settings["accumulation"],
        max_steps=settings["steps"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type=settings["lr_scheduler_type"],
        warmup_steps=settings["warmup_ratio"],
        weight_decay=0.0,
        max_grad_norm=settings["max_grad_norm"],
        optim=settings["optim"],
        bf16=settings["autocast"],
        tf32=True if cuda else None,
        use_cpu=not cuda,
        gradient_checkpointing=settings["gradient_checkpointing"],
        use_liger_kernel=settings["liger"],
        torch_compile=settings["torch_compile"],
        train_sampling_strategy="group_by_length" if settings["by_length"] else "random",
        dataloader_pin_memory=cuda,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings["seed"],
        data_seed=settings["seed"],
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=load_from_disk(settings["data"]),
        processing_class=AutoTokenizer.from_pretrained(settings["base"]),
        peft_config=LoraConfig(**settings["lora"], task_type="CAUSAL_LM"),
    )
    trainer.data_collator = clock.counting(trainer.data_collator)
    trainer.train()
    clock.save(out, settings["accumulation"])


if __name__ == "__main__":
    train(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
