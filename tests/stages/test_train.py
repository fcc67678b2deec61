"""Training learns with every method, survives what stops it, and never resumes on something else."""

import logging
import math
import random
import resource
import shutil
import signal
import time

import pytest
import torch
from dvc.utils.hydra import compose_and_dump
from safetensors.torch import load_file
from transformers import Trainer

from stages import train
from stages.lib.core import params
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, sha256
from stages.lib.settings.track import Track
from stages.lib.settings.train import Launch, Train
from stages.lib.training import checkpoints, trainer
from stages.lib.training.packed_llama import PackedLlama
from support.disk import no_file_beyond
from support.settings import CHATML, ROOT
from support.training import arguments, started, tuned, wait_for

METHODS = sorted(path.stem for path in (ROOT / "conf/train").glob("*.yaml"))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(name, base, tokenized, tmp_path):
    """Each file of conf/train, as DVC composes it, lowers the loss of the packed sequences."""
    path = tmp_path / "params.yaml"
    small = [
        "train.num_train_epochs=1",
        "train.max_length=512",
        "train.precision=fp32",
        "train.optim=adamw_torch_fused",
    ]
    changes = [f"train={name}", *small[: 3 if name == "qlora" else 4], "train.lora.r=8", "train.eval_steps=1000"]
    compose_and_dump(
        path, str(ROOT / "conf"), None, "config", str(ROOT / "conf/plugins"), [*changes, "train.save_steps=1000"]
    )
    settings = params.load("train", Train, path)
    out = tmp_path / "adapter"
    files = train.Files(tokenized, base, out, tmp_path / "plots", tmp_path / "train.json")
    rates = train.main(settings, CHATML, Track(mode="disabled", project="test"), 5, files)
    assert rates["tokens_per_second"] > 0
    losses = [float(line.split(",")[4]) for line in (tmp_path / "plots/loss.csv").read_text().splitlines()[1:]]
    assert losses[-1] < losses[0] - 0.05 and all(map(math.isfinite, losses))
    weights = load_file(next(out.glob("*.safetensors")))
    kinds = {"dora": "lora_magnitude_vector", "full": "model.layers.0.mlp.up_proj.weight"}
    assert any(kinds.get(name, "lora_A") in key for key in weights)
    assert any("token_adapter" in key for key in weights) == (name != "full")


def test_stopped_and_killed_training_ends_with_the_same_bytes(tokenized, base, tmp_path):
    """Once asked to stop, three times killed at random, one of them while a checkpoint is being written."""
    seed = random.randrange(1 << 30)
    print("delays of seed", seed)
    draw = random.Random(seed)
    changes = {"lora_dropout": 0.1, "num_train_epochs": 6, "eval_steps": 100}  # no kill comes after the end
    folder, whole = tmp_path / "stopped", tmp_path / "whole"
    given = arguments(tokenized, base, folder, **changes)

    def complete() -> int:
        """The last step that has a checkpoint."""
        found = folder.glob(".checkpoints/*/checkpoint-*/trainer_state.json")
        return max((int(path.parent.name.split("-")[1]) for path in found), default=0)

    def half_written() -> bool:
        found = folder.glob(".checkpoints/*/checkpoint-*")
        return any(not (path / "trainer_state.json").exists() for path in found)

    for how, moment in (("asked", complete), ("killed", complete), ("killed", half_written), ("killed", complete)):
        process = started(folder, given)
        before = complete()
        wait_for(process, half_written if moment is half_written else lambda before=before: complete() > before)
        if moment is complete:
            time.sleep(draw.uniform(0, 0.4))
        process.send_signal(signal.SIGTERM if how == "asked" else signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode != 0 and not (folder / "adapter").exists()
        if how == "asked":
            assert "as asked; checkpoint-" in errors and "Traceback" not in errors
    for one, settings in ((folder, given), (whole, arguments(tokenized, base, whole, **changes))):
        process = started(one, settings)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    for file in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "plots/loss.csv", "train.json"):
        assert sha256(folder / file) == sha256(whole / file), file
    assert not list(tmp_path.glob("*/.checkpoints/*/"))


def test_a_full_disk_keeps_the_last_good_checkpoint(tokenized, base, tmp_path):
    process = started(tmp_path, arguments(tokenized, base, tmp_path))
    wait_for(process, lambda: list(tmp_path.glob(".checkpoints/*/checkpoint-2/trainer_state.json")))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (10_000, 10_000))  # no file may grow beyond
    _, errors = process.communicate()
    assert process.returncode == 1 and "Traceback" not in errors
    assert "not written" in errors and "last good one" in errors and "GB free" in errors
    (folder,) = tmp_path.glob(".checkpoints/*/")
    assert checkpoints.newest(folder) and all(
        (p / "trainer_state.json").stat().st_size for p in folder.glob("checkpoint-*")
    )


def test_an_adapter_that_cannot_be_saved_is_said_and_made_from_the_last_checkpoint(tokenized, base, tmp_path):
    settings = {"save_steps": 100, "eval_steps": 100}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "adapter").write_text("before")
    tuned(base, tokenized, tmp_path / "whole", **settings)
    shutil.copytree(tmp_path / "whole/checkpoints", tmp_path / "checkpoints", dirs_exist_ok=True)
    said = r"adapter not written: .*GB free, checkpoint-\d+ \(kept, .* last good one"
    with no_file_beyond(50_000), pytest.raises(UserError, match=said):
        tuned(base, tokenized, tmp_path, **settings)
    assert (tmp_path / "adapter").read_text() == "before"
    assert not (tmp_path / ".adapter.partial").exists()


@pytest.mark.parametrize(
    "error",
    [torch.distributed.DistBackendError("NCCL error"), RuntimeError("[gloo] Connection closed by peer")],
    ids=str,
)
def test_a_lost_process_is_not_taken_for_a_full_disk(error, tmp_path):
    with pytest.raises(type(error)), trainer.writing(tmp_path / "adapter", tmp_path):
        raise error


@pytest.mark.parametrize("moment", ["forward", "_save_checkpoint", "save_model"])
def test_a_gpu_without_memory_is_not_taken_for_a_full_disk(moment, base, tokenized, tmp_path, monkeypatch):
    """Whenever it happens: the settings that take less, as in the refusal before training."""

    def exhausted(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has less.")

    owner = PackedLlama if moment == "forward" else Trainer
    monkeypatch.setattr(owner, moment, exhausted)
    with pytest.raises(UserError, match=r"^the GPU has no memory left \(CUDA out of memory.*2\.00 GiB\).*-S train\."):
        tuned(base, tokenized, tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_a_broken_gpu_is_not_taken_for_a_full_disk_either(base, tokenized, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Trainer, "_save_checkpoint", broken)
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        tuned(base, tokenized, tmp_path)


def test_bitsandbytes_warns_of_no_product(base, tokenized, tmp_path, caplog):
    """On a GPU it does of each 8-bit one whose input is bfloat16: about nine million lines in the 8B recipe."""
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    logger.setLevel(logging.NOTSET)
    tuned(base, tokenized, tmp_path, quantization="8bit", precision="bf16", num_train_epochs=1)
    logger.warning("MatMul8bitLt: inputs will be cast")
    assert "MatMul8bitLt" not in caplog.text


def test_an_exploding_loss_stops_and_names_the_records(base, tokenized, tmp_path):
    with pytest.raises(UserError, match="training stopped") as caught:
        tuned(
            base,
            tokenized,
            tmp_path,
            learning_rate=1e4,
            max_grad_norm=1e9,
            num_train_epochs=4,
            save_steps=1,
            eval_steps=100,
        )
    named = str(caught.value).split("Records of the batch: ")[1].split(". Look")[0].split(", ")
    assert set(named) <= {str(i) for i in range(120)} and len(named) > 1
    assert not (tmp_path / "adapter").exists()


def test_the_best_checkpoint_is_kept_and_patience_ends_training(base, tokenized, tmp_path):
    """A rate that soon makes the validation loss worse."""
    changes = {"learning_rate": 0.1, "lr_scheduler_type": "constant", "num_train_epochs": 6, "divergence_factor": 1e9}
    history = tuned(
        base,
        tokenized,
        tmp_path,
        **changes,
        load_best_model_at_end=True,
        early_stopping_patience=3,
        eval_steps=1,
        save_steps=1,
    )
    validation = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    best = min(validation, key=validation.get)
    assert max(validation) == best + 3 < 6 * 9
    kept = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "checkpoints").glob("checkpoint-*"))
    assert kept == [best, max(validation) - 1, max(validation)]
    tensors, expected = (
        load_file(path / "adapter_model.safetensors")
        for path in (tmp_path / "adapter", tmp_path / f"checkpoints/checkpoint-{best}")
    )
    assert all(tensors[name].equal(expected[name]) for name in expected)


def test_accumulated_batches_weigh_every_token_alike(base, tokenized, tmp_path):
    """One batch of four sequences gives the adapter that four batches of one sequence give."""
    losses = []
    for name, batch in (("one", 4), ("four", 1)):
        changes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 4 // batch}
        history = tuned(
            base, tokenized, tmp_path / name, **changes, precision="fp32", learning_rate=1e-3, lora_dropout=0.0
        )
        losses.append([entry["loss"] for entry in history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_checkpointing_and_offloading_change_no_loss(base, tokenized, tmp_path):
    losses = []
    for name, saving in (("kept", False), ("again", True)):
        changes = {"gradient_checkpointing": saving, "activation_offload": saving, "learning_rate": 1e-3}
        history = tuned(base, tokenized, tmp_path / name, **changes)
        losses.append([entry["loss"] for entry in history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "train.learning_rate is 0.0, expected a number above 0"),
        ({"method": "full", "quantization": "4bit"}, "train.quantization is '4bit', expected none where"),
        ({"target_modules": ["q_proj", "query"]}, "train.lora.target_modules is .*query.*all-linear, or a list"),
        ({"r": 300}, "train.lora.r"),
        ({"per_device_train_batch_size": 10**6}, "GiB are free"),
        (
            {"launch": Launch(strategy="fsdp", processes=2, nodes=1, rendezvous="")},
            r"train.launch.strategy is 'fsdp'.*no GPU was found.*-S train/launch=ddp -S train.launch.processes=1",
        ),
    ],
)
def test_a_bad_value_ends_in_one_sentence_before_any_weight_is_loaded(
    change, message, base, tokenized, tmp_path, monkeypatch
):
    monkeypatch.setattr("stages.lib.training.adapters.load_model", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(UserError, match=message) as caught:
        train.main(*arguments(tokenized, base, tmp_path, **change))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "adapter").exists()


def test_the_training_summary_has_the_best_validation_loss(base, tokenized, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    train.main(*arguments(tokenized, base, tmp_path, load_best_model_at_end=True))
    summary = read_json(tmp_path / "train.json")
    losses = [line.split(",")[5] for line in (tmp_path / "plots/loss.csv").read_text().splitlines()[1:]]
    assert summary["eval_loss"] == min(float(loss) for loss in losses if loss)
