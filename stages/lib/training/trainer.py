"""Fine-tuning on packed rows through transformers.Trainer."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import DistributedType, PartialState
from datasets import load_from_disk
from peft import PeftModel
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from stages.lib import adapters, checkpoints
from stages.lib.allocator import keep_freed_memory
from stages.lib.attention import boundaries
from stages.lib.chat import IGNORED
from stages.lib.errors import UserError
from stages.lib.files import replacing
from stages.lib.interrupt import stop_requested
from stages.lib.loss import STEP, without_logits
from stages.lib.train_schema import Train
from stages.lib.watch import Watch

UNWRITTEN = (OSError, RuntimeError, SafetensorError)  # a full disk, as Python, torch.save and safetensors say it


def finetune(
    train: Train, trained_ids: list[int], seed: int, tokenized: Path, base: Path, folder: Path, adapter: Path
) -> list[dict]:
    """Tune on the packed rows, with checkpoints in `folder`, and save what was learnt as `adapter`.

    Resumes from the newest checkpoint there. Every setting of `train` is decided (`machine.resolved`).
    Returns the trainer's log history: one entry an optimiser step, one a measurement of the validation loss.
    Raises UserError where a signal stopped it after a checkpoint, a loss exploded, or the disk is full.
    """
    keep_freed_memory()
    trainer = Trainer(
        model=model_of(train, trained_ids, seed, base),
        args=arguments(train, folder, seed),
        train_dataset=load_from_disk(tokenized / "train").with_format("numpy"),
        eval_dataset=load_from_disk(tokenized / "validation").with_format("numpy"),
        data_collator=collate,
    )
    trainer.model_accepts_loss_kwargs = True
    trainer.evaluate = partial(evaluate, trainer)
    trainer._save_checkpoint = partial(save_or_keep_the_last, trainer, trainer._save_checkpoint)
    trainer.remove_callback(PrinterCallback)
    if train.early_stopping_patience:
        trainer.add_callback(EarlyStoppingCallback(train.early_stopping_patience))
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads what it did not write
    checkpoint = checkpoints.newest(folder)
    with stop_requested() as stop:
        trainer.add_callback(Watch(trainer, train.spike_factor, train.explosion_factor, stop))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    state = trainer.state
    if stop.is_set() and state.global_step < state.max_steps:
        raise UserError(
            f"stopped at step {state.global_step} of {state.max_steps} as asked; checkpoint-{state.global_step} is "
            "written, and the same command goes on from it"
        )
    first = trainer.is_world_process_zero()
    try:
        with replacing(adapter) if first else nullcontext(adapter) as target:
            trainer.save_model(str(target))  # on every process: each may hold a part of the weights
            if first:
                adapters.tidy(target, base)
    except UNWRITTEN as error:
        raise not_written(adapter, error, folder) from error
    return state.log_history[:-1]  # the last entry sums up this process's part only


def model_of(train: Train, trained_ids: list[int], seed: int, base: Path) -> PreTrainedModel | PeftModel:
    """What `train.method` trains of the base, giving its loss and no logits."""
    model = adapters.trainable(
        base, train.method, train.quantization, train.precision, train.attention, train.lora, trained_ids, seed
    )
    # The Llama below the adapter's wrapper; the same object where there is no wrapper.
    llama = model.get_base_model() if isinstance(model, PeftModel) else model
    without_logits(llama, [] if train.method == "full" else trained_ids, train.activation_offload)
    if train.gradient_checkpointing:
        llama.enable_input_require_grads()  # reentrant checkpointing makes no gradient of inputs that need none
    return model


def arguments(train: Train, folder: Path, seed: int) -> TrainingArguments:
    """The trainer's settings."""
    cpu = not torch.cuda.is_available()
    chosen = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=train.per_device_train_batch_size,
        per_device_eval_batch_size=1,  # a row each, so that a row that several processes share counts once
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        num_train_epochs=train.num_train_epochs,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_ratio,
        weight_decay=0.0,
        max_grad_norm=train.max_grad_norm,
        optim=train.optim,
        bf16=train.precision == "bf16",
        tf32=None if cpu else True,
        torch_compile=train.torch_compile,
        use_cpu=cpu,
        activation_checkpointing=train.gradient_checkpointing,
        # bitsandbytes keeps the inputs of 8-bit products where only reentrant checkpointing frees them
        activation_checkpointing_kwargs={"use_reentrant": train.quantization == "8bit"},
        eval_strategy="steps",
        eval_steps=train.eval_steps,
        save_strategy="steps",
        save_steps=train.save_steps,
        save_total_limit=3 if train.load_best_model_at_end else 2,  # the two newest, and the best
        load_best_model_at_end=train.load_best_model_at_end,
        restore_callback_states_from_checkpoint=True,  # how long the validation loss has not improved
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,  # Watch draws one bar
        seed=seed,
        data_seed=seed,
        full_determinism=cpu,
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        report_to="none",
        fsdp=train.launch.strategy == "fsdp",
        ddp_find_unused_parameters=False,
        fsdp_config={"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}
        if train.launch.strategy == "fsdp"
        else None,
    )
    chosen._n_gpu = min(chosen.n_gpu, 1)  # never DataParallel: several GPUs are for train.launch
    if cpu and train.launch.strategy == "fsdp":
        # Accelerate 1.15 takes FSDP for GPUs only, and would run DDP on CPUs without a word.
        PartialState(cpu=True).distributed_type = DistributedType.MULTI_XPU
    return chosen


def collate(rows: list[dict]) -> dict:
    """Packed rows as one line of tokens, with no padding but a last document of it; tensors of shape (1, tokens).

    That one fills the line up to a multiple of STEP tokens: matrix products are prepared for each new shape.
    transformers keeps documents apart by the boundaries only where there is no attention_mask.
    """
    line, tokens = {}, sum(row["tokens"] for row in rows)
    padding = np.arange(-tokens % STEP)
    for name, filling in (("input_ids", 0 * padding), ("labels", 0 * padding + IGNORED), ("position_ids", padding)):
        parts = [row[name][: row["tokens"]] for row in rows]
        line[name] = torch.from_numpy(np.concatenate([*parts, filling])).long()[None]
    told = {"record_ids": [i for row in rows for i in row["record_ids"]], "tokens": tokens}
    return line | boundaries(line["position_ids"]) | told


def evaluate(trainer: Trainer, ignore_keys: None = None) -> dict:
    """Validation loss per trained token, logged; the trainer's own is a mean of the rows' means."""
    model, sums = trainer.model_wrapped.eval(), []
    for batch in trainer.get_eval_dataloader():
        del batch["record_ids"], batch["tokens"]
        with torch.no_grad():
            loss = model(**batch, num_items_in_batch=1).loss
        sums.append(torch.stack([loss.double(), (batch["labels"] != IGNORED).sum()])[None])
        sums[-1] = trainer.accelerator.gather_for_metrics(sums[-1])
    loss, tokens = torch.cat(sums).sum(0).tolist()
    metrics = {"eval_loss": loss / tokens}
    trainer.log(metrics)
    trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
    return metrics


def save_or_keep_the_last(trainer: Trainer, save: Callable, *arguments) -> None:
    """Write a checkpoint; where it cannot be written, remove its half and raise UserError."""
    try:
        save(*arguments)
    except UNWRITTEN as error:
        folder = Path(trainer.args.output_dir)
        half = folder / f"checkpoint-{trainer.state.global_step}"
        shutil.rmtree(half, ignore_errors=True)  # a read-only disk keeps it; no run resumes from it
        raise not_written(half, error, folder) from error


def not_written(path: Path, error: Exception, folder: Path) -> UserError:
    """What to say of a checkpoint or an adapter that cannot be written, and which checkpoint of `folder` remains."""
    last = checkpoints.newest(folder)
    size = sum(file.stat().st_size for file in last.iterdir()) if last else 0
    kept = f"{last.name} (kept, {size / 1e9:.2f} GB) is the last good one" if last else "there is no checkpoint yet"
    free = shutil.disk_usage(path.parent).free / 1e9
    return UserError(f"{path} not written: {error}; {free:.2f} GB free, {kept}; mend that and run the same command")
