"""One run of TRL's SFTTrainer: `python -m bench.peer_trl SETTINGS OUT`, as bench.train asks for it, with TRL 1.16.

The data set holds `input_ids` and `labels`, a document each, or sequences already packed with `seq_lengths`, the
documents' lengths: TRL then trains on the very sequences that ours trains on. Its loss, `nll`, is made
in chunks of the logits.
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

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
QUANTIZED = {"8bit": {"load_in_8bit": True}, "4bit": NF4 | {"bnb_4bit_compute_dtype": torch.bfloat16}}


def tune(settings: dict, out: Path) -> None:
    """Tune as `settings["train"]` has it, a section of params.yaml, for `steps`; nothing is evaluated or saved.

    `packed`: padding-free packed sequences, else padded ones; `by_length`: documents of like length together.
    """
    clock = watch(settings["cap_gib"])
    section, cuda = settings["train"], torch.cuda.is_available()
    bf16, quantized = section["precision"] == "bf16", QUANTIZED.get(section["quantization"])
    set_seed(settings["seed"])
    model = AutoModelForCausalLM.from_pretrained(
        settings["base"],
        dtype=torch.bfloat16 if bf16 else torch.float32,
        attn_implementation=settings["attention"],
        quantization_config=BitsAndBytesConfig(**quantized) if quantized else None,
        device_map={"": 0} if cuda else None,
    )
    config = SFTConfig(
        output_dir=str(out.with_suffix("")),
        packing=settings["packed"],
        max_length=section["max_length"],
        dataset_kwargs={"skip_prepare_dataset": True},
        per_device_train_batch_size=section["per_device_train_batch_size"],
        gradient_accumulation_steps=section["gradient_accumulation_steps"],
        max_steps=settings["steps"],
        learning_rate=section["learning_rate"],
        lr_scheduler_type=section["lr_scheduler_type"],
        warmup_steps=section["warmup_ratio"],
        weight_decay=0.0,
        max_grad_norm=section["max_grad_norm"],
        optim=section["optim"],
        bf16=bf16,
        tf32=True if cuda else None,
        use_cpu=not cuda,
        gradient_checkpointing=section["gradient_checkpointing"],
        use_liger_kernel=settings["liger"],
        torch_compile=section["torch_compile"],
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
        peft_config=LoraConfig(**section["lora"], task_type="CAUSAL_LM"),
    )
    trainer.data_collator = clock.counting(trainer.data_collator)
    trainer.train()
    clock.save(out, section["gradient_accumulation_steps"])


if __name__ == "__main__":
    tune(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
