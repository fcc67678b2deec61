"""Fine-tuning on packed sequences through transformers.Trainer."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from datasets import load_from_disk
from peft import PeftModel
from safetensors import SafetensorError
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, replacing
from stages.lib.model.allocator import keep_freed_memory
from stages.lib.model.chat import IGNORED
from stages.lib.settings.train import Train
from stages.lib.training import adapters, checkpoints, memory
from stages.lib.training.attention import boundaries
from stages.lib.training.interrupt import stop_requested
from stages.lib.training.launch import LOST
from stages.lib.training.loss import STEP
from stages.lib.training.monitor import Monitor, StepData, StopWhenAsked
from stages.lib.training.packed_llama import PackedLlama

UNWRITTEN = (OSError, RuntimeError, SafetensorError)  # a full disk, as Python, torch.save and safetensors say it
# RuntimeErrors that no disk can mend; gloo has no type of its own for a partner that it lost.
NOT_OF_THE_DISK = (torch.OutOfMemoryError, torch.AcceleratorError, torch.distributed.DistError)


class Places(NamedTuple):
    """The folders of a training: what it reads, and what it writes."""

    tokenized: Path
    base: Path
    checkpoints: Path
    adapter: Path


class PackedTrainer(Trainer):
    """Trains a `PackedLlama`, with its `Monitor` told of every step."""

    def __init__(self, monitor: Monitor, **settings: Any) -> None:
        super().__init__(**settings)
        self.monitor = monitor
        self.remove_callback(PrinterCallback)
        self.add_callback(monitor)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        """The batches of an optimiser step; their record ids and token counts go to the monitor."""
        started = time.perf_counter()
        batches, labels = super().get_batch_samples(epoch_iterator, num_batches, device)
        record_ids = [record for batch in batches for record in batch.pop("record_ids")]
        tokens = sum(batch.pop("tokens") for batch in batches)
        self.monitor.step = StepData(started, record_ids, tokens)
        return batches, labels

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validation loss per trained token, logged; transformers' own is a mean of the sequences' means."""
        model = self.model_wrapped.eval()
        sums = []
        for batch in self.get_eval_dataloader():
            del batch["record_ids"], batch["tokens"]
            with torch.no_grad():
                loss = model(**batch, num_items_in_batch=1).loss
            here = torch.stack([loss.double(), (batch["labels"] != IGNORED).sum()])[None]
            sums.append(self.accelerator.gather_for_metrics(here))
        loss, tokens = torch.cat(sums).sum(0).tolist()
        metrics = {"eval_loss": loss / tokens}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write a checkpoint; where it cannot be written, remove its half and raise UserError."""
        folder = Path(str(self.args.output_dir))
        half = folder / f"checkpoint-{self.state.global_step}"
        try:
            with writing(half, folder):
                super()._save_checkpoint(model, trial)
        except UserError:
            shutil.rmtree(half, ignore_errors=True)  # a read-only disk keeps it; no run resumes from it
            raise


def finetune(train: Train, trained_ids: list[int], seed: int, places: Places) -> list[dict]:
    """Tune on the packed sequences, and save the adapter, or the whole model where that was trained.

    Resumes from the newest checkpoint. Every setting of `train` is decided (`hardware.resolved`).
    Returns the trainer's log history: one entry an optimiser step, one a measurement of the validation loss.
    Raises UserError where a signal stopped it after a checkpoint, a loss diverged, the disk is full, or a GPU's memory.
    """
    keep_freed_memory()
    try:
        return _finetuned(train, trained_ids, seed, places)
    except torch.OutOfMemoryError as error:
        raise memory.exhausted(read_json(places.base / "config.json"), train, error) from error


def _finetuned(train: Train, trained_ids: list[int], seed: int, places: Places) -> list[dict]:
    trainer = PackedTrainer(
        Monitor(train.spike_factor, train.divergence_factor),
        model=model_of(train, trained_ids, seed, places.base),
        args=arguments(train, places.checkpoints, seed),
        train_dataset=load_from_disk(places.tokenized / "train").with_format("numpy"),
        eval_dataset=load_from_disk(places.tokenized / "validation").with_format("numpy"),
        data_collator=collate,
    )
    if train.early_stopping_patience:
        trainer.add_callback(EarlyStoppingCallback(train.early_stopping_patience))
    deterministic: Any = torch.utils.deterministic  # a module whose attribute its types do not know
    deterministic.fill_uninitialized_memory = False  # nothing reads what it did not write
    checkpoint = checkpoints.newest(places.checkpoints)
    with stop_requested() as stop:
        trainer.add_callback(StopWhenAsked(stop))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    state = trainer.state
    if stop.is_set() and state.global_step < state.max_steps:
        raise UserError(
            f"stopped at step {state.global_step} of {state.max_steps} as asked; checkpoint-{state.global_step} is "
            "written, and the same command goes on from it"
        )
    save(trainer, places)
    return state.log_history[:-1]  # the last entry sums up this process's part only


def save(trainer: PackedTrainer, places: Places) -> None:
    """Write the adapter, whole or not at all; called on every process, for each may hold a part of the weights."""
    first = trainer.is_world_process_zero()
    kept = replacing(places.adapter) if first else nullcontext(places.adapter)
    with writing(places.adapter, places.checkpoints), kept as target:
        trainer.save_model(str(target))
        if first:
            adapters.tidy(target, places.base)


def model_of(train: Train, trained_ids: list[int], seed: int, base: Path) -> PackedLlama | PeftModel:
    """What `train.method` trains of the base."""
    model = adapters.trainable(base, train, trained_ids, seed)
    # The Llama below the adapter's wrapper; the same object where there is no wrapper.
    llama = cast(PackedLlama, model.get_base_model() if isinstance(model, PeftModel) else model)
    llama.offload = train.activation_offload
    if train.gradient_checkpointing:
        llama.enable_input_require_grads()  # reentrant checkpointing makes no gradient of inputs that need none
    return model


def arguments(train: Train, folder: Path, seed: int) -> TrainingArguments:
    """The trainer's settings."""
    cpu = not torch.cuda.is_available()
    sharded = train.launch.strategy == "fsdp"
    chosen = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=train.per_device_train_batch_size,
        per_device_eval_batch_size=1,  # so that a sequence that several processes share counts once
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        num_train_epochs=train.num_train_epochs,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_ratio,
        weight_decay=0.0,
        max_grad_norm=train.max_grad_norm,
        optim=train.optim,
        bf16=train.precision == "bf16",
        tf32=None if cpu else torch.cuda.is_tf32_supported(),
        torch_compile=train.torch_compile,
        use_liger_kernel=train.use_liger_kernel,
        liger_kernel_config={"fused_linear_cross_entropy": False},  # the loss is ours: `packed_llama`
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
        disable_tqdm=True,  # the monitor draws one bar
        seed=seed,
        data_seed=seed,
        full_determinism=cpu,
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        report_to="none",
        fsdp=sharded,  # type: ignore[arg-type]  # a bool since 5.0, which its annotation lacks
        ddp_find_unused_parameters=False,
        fsdp_config={"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]} if sharded else None,
    )
    chosen._n_gpu = min(chosen.n_gpu, 1)  # never DataParallel: several GPUs are for train.launch
    if sharded and chosen.bf16:
        # Accelerate's own would also sum gradients and hand out the loss in bfloat16.
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        chosen.fsdp_plugin_args["mixed_precision_policy"] = policy
    return chosen


def collate(sequences: list[dict]) -> dict:
    """Packed sequences as one line of tokens, with no padding but a last document of it; tensors (1, tokens).

    That one fills the line up to a multiple of STEP tokens: matrix products are prepared for each new shape.
    transformers keeps documents apart by the boundaries only where there is no attention_mask.
    """
    tokens = sum(sequence["tokens"] for sequence in sequences)
    positions = np.arange(-tokens % STEP)
    padding = {"input_ids": np.zeros_like(positions), "labels": np.full_like(positions, IGNORED)}
    padding["position_ids"] = positions
    line = {}
    for name, filling in padding.items():
        parts = [sequence[name][: sequence["tokens"]] for sequence in sequences]
        line[name] = torch.from_numpy(np.concatenate([*parts, filling])).long()[None]
    record_ids = [record for sequence in sequences for record in sequence["record_ids"]]
    return line | boundaries(line["position_ids"]) | {"record_ids": record_ids, "tokens": tokens}


@contextmanager
def writing(path: Path, folder: Path) -> Iterator[None]:
    """Within it, a checkpoint or an adapter that cannot be written is a UserError.

    It says which checkpoint of `folder` remains. What another process or the GPU did wrong is raised as it is.
    """
    try:
        yield
    except UNWRITTEN as error:
        lost = isinstance(error, RuntimeError) and LOST.search(str(error))
        if lost or isinstance(error, NOT_OF_THE_DISK):
            raise
        last = checkpoints.newest(folder)
        size = sum(file.stat().st_size for file in last.iterdir()) if last else 0
        kept = f"{last.name} (kept, {size / 1e9:.2f} GB) is the last good one" if last else "there is no checkpoint yet"
        free = shutil.disk_usage(path.parent).free / 1e9
        raise UserError(
            f"{path} not written: {error}; {free:.2f} GB free, {kept}; fix that and run the same command"
        ) from error
