"""What a training leaves to look at: tables and a summary."""

import csv
import io
import math

import pytest

from stages.lib.reporting.loss_curve import loss_curve
from stages.lib.training import history
from support.log_history import HISTORY, training


def rows(table: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(table)))


def test_the_loss_table_has_each_step_once_with_every_digit():
    loss = rows(history.tables(HISTORY)["loss"])
    assert [row["step"] for row in loss] == ["1", "2", "3", "4", "5", "6"]
    assert [float(row["loss"]) for row in loss] == [3.1, 0.1 + 0.2, 2.5, 9.0, 2.0, 1.9]
    assert [row["eval_loss"] for row in loss] == ["", "1.5", "", "1.25", "", "1.4"]
    assert float(loss[3]["eval_perplexity"]) == math.exp(1.25)
    assert float(loss[2]["learning_rate"]) == 1e-3 / 3
    assert float(loss[2]["grad_norm"]) == 0.5 + 3 / 7


def test_nothing_that_the_machine_does_is_in_tables_and_summary():
    slower = [entry | {"tokens_per_second": 1.0, "peak_memory": 7} for entry in HISTORY if "loss" in entry]
    slower += [entry for entry in HISTORY if "loss" not in entry]
    assert history.tables(HISTORY) == history.tables(slower)
    assert history.summary(HISTORY) == history.summary(slower)


def test_the_speed_is_the_median_of_the_steps():
    assert history.tokens_per_second(HISTORY) == 903.5


def test_spikes_name_their_records():
    spikes = history.tables(HISTORY)["spikes"]
    assert rows(spikes) == [{"step": "4", "loss": "9.0", "usual_loss": "2.5", "records": "a1 b2"}]
    assert history.tables(HISTORY[:3])["spikes"] == "step,loss,usual_loss,records\n"


def test_the_summary_has_the_last_training_loss_and_the_best_validation_loss():
    best = {"eval_loss": 1.25, "eval_perplexity": math.exp(1.25), "best_step": 4}
    assert history.summary(HISTORY) == {"steps": 6, "train_loss": 1.9, **best, "spikes": 1}
    never = history.summary(HISTORY[:1])
    assert never["steps"] == 1
    assert never["eval_loss"] is never["eval_perplexity"] is never["best_step"] is None


@pytest.mark.parametrize("log", [HISTORY, HISTORY[:1], [training(step, 1 / step) for step in range(1, 90)]])
def test_the_loss_curve_is_drawn_however_short_the_training_was(log):
    table = history.tables(log)["loss"]
    picture = loss_curve(table)
    assert picture == loss_curve(table)
    assert ("validation" in picture) == any("eval_loss" in entry for entry in log)
    assert ("median" in picture) == (len(log) > 50)
