"""LoRA fine-tuning through transformers.Trainer."""

import logging
import shutil
from pathlib import Path

import torch
from datasets import load_from_disk
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, Trainer, TrainingArguments, default_data_collator, set_seed

from stages.lib import checkpoints
from stages.lib.errors import UserError
from stages.lib.files import read_json, write_json
from stages.lib.schema import Train


def add_adapter(model: PreTrainedModel, train: Train, trained_tokens: list[int], seed: int) -> PeftModel:
    """Wrap the frozen base with a LoRA adapter; `trained_tokens` are the vocabulary rows that learn too."""
    if train.quantization != "none":
        raise UserError(f"train.quantization is {train.quantization!r}, which is not there yet; expected none")
    set_seed(seed)
    # Both matrices that know a token: the embedding reads it, lm_head predicts it.
    rows = {"embed_tokens": trained_tokens, "lm_head": trained_tokens} if trained_tokens else None
    adapter = LoraConfig(
        r=train.lora.r,
        lora_alpha=train.lora.lora_alpha,
        lora_dropout=train.lora.lora_dropout,
        target_modules=train.lora.target_modules,
        trainable_token_indices=rows,
        task_type="CAUSAL_LM",
    )
    if train.gradient_checkpointing:
        model.enable_input_require_grads()
    return get_peft_model(model, adapter)


def finetune(model: PeftModel, train: Train, tokenized: Path, folder: Path, seed: int) -> list[dict]:
    """Train on the packed rows, with checkpoints in `folder`; returns the trainer's log history.

    The loss is the mean over the trained tokens of the whole accumulated batch. No attention_mask is
    passed and the key-value cache is off: only so does transformers keep packed documents apart.
    """
    cpu = not torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=train.per_device_train_batch_size,
        per_device_eval_batch_size=train.per_device_train_batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        num_train_epochs=train.num_train_epochs,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_ratio,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        bf16=train.precision == "bf16",
        use_cpu=cpu,
        gradient_checkpointing=train.gradient_checkpointing,
        eval_strategy="steps",
        eval_steps=train.eval_steps,
        save_strategy="steps",
        save_steps=train.save_steps,
        save_total_limit=2,
        logging_steps=train.logging_steps,
        seed=seed,
        data_seed=seed,
        full_determinism=cpu,
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        report_to="none",
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=load_from_disk(tokenized / "train"),
        eval_dataset=load_from_disk(tokenized / "validation"),
        data_collator=default_data_collator,
    )
    checkpoint = checkpoints.newest(folder)
    for partial in set(folder.glob("checkpoint-*")) - {checkpoint}:
        shutil.rmtree(partial)
    if checkpoint:
        logging.info("resuming from %s", checkpoint.name)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.evaluate()
    *history, last_eval = trainer.state.log_history
    return [*history[:-1], last_eval, history[-1]]  # the summary of the training last


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Save the adapter; the same weights always give the same bytes."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # a model card template of PEFT's, with nothing in it
    config = read_json(folder / "adapter_config.json")
    config["target_modules"] = sorted(config["target_modules"])  # PEFT writes a set, in any order
    config["base_model_name_or_path"] = None
    write_json(folder / "adapter_config.json", config)
