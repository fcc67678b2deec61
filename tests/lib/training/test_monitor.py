"""What is said of a step's loss."""

import logging

import pytest

from stages.lib.core.errors import UserError
from stages.lib.training.monitor import Monitor, StepData


@pytest.fixture
def monitor() -> Monitor:
    watching = Monitor(spike_factor=2.0, divergence_factor=5.0)
    watching.processes, watching.step = 1, StepData(0.0, ["a1", "b2"], 100)
    return watching


def step(loss: float, grad_norm: float = 1.0) -> dict:
    return {"step": 51, "loss": loss, "grad_norm": grad_norm}


QUESTIONS_AND_DIALOGUES = [0.1, 0.1, 1.0, 0.1, 0.1] * 10  # batches of one source each: the median is 0.1


def test_a_batch_of_another_source_is_no_spike(monitor: Monitor):
    entry = step(1.4)
    monitor.look_at(entry, QUESTIONS_AND_DIALOGUES)
    assert entry == step(1.4)


def test_a_spike_is_noted_with_its_records(monitor: Monitor, caplog: pytest.LogCaptureFixture):
    entry = step(2.1)
    with caplog.at_level(logging.WARNING):
        monitor.look_at(entry, QUESTIONS_AND_DIALOGUES)
    assert (entry["usual_loss"], entry["spike_records"]) == (1.0, ["a1", "b2"])
    assert "a spike" in caplog.text and "a1, b2" in caplog.text


@pytest.mark.parametrize("entry", [step(5.1), step(float("nan")), step(0.1, grad_norm=float("inf"))])
def test_divergence_stops_the_training(monitor: Monitor, entry: dict):
    with pytest.raises(UserError, match="Records of the batch: a1, b2"):
        monitor.look_at(entry, QUESTIONS_AND_DIALOGUES)


def test_before_ten_steps_nothing_is_usual(monitor: Monitor):
    entry = step(100.0)
    monitor.look_at(entry, [0.1] * 9)
    assert entry == step(100.0)
