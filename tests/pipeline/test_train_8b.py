"""bench.train_8b says what it measured whatever failed, and begins nothing for which its budget is too short."""

import time

import pytest

from bench import train_8b
from bench.train_8b import PARTS, Session

SEEN = {"tokens_per_second": 1000.0, "step_seconds": 4.0, "peak": 1 << 30, "share": 0.25, "losses": [2.0, 1.0]}
OURS, PEER = "ours-lora-2048", "trl-liger-lora-2048"


@pytest.mark.parametrize(
    ("results", "first", "peers"),
    [
        ({OURS: SEEN, PEER: SEEN | {"tokens_per_second": 800.0, "losses": [2.0, 1.01]}}, "1,000 | 1.00", "800 | 1.25"),
        ({OURS: {"failed": "status 1 / out of memory"}, PEER: SEEN}, "failed: out of memory", "1,000 | –"),
        ({PEER: SEEN}, "", "1,000 | –"),
        ({OURS: SEEN, PEER: {"failed": "killed by SIGKILL"}}, "1,000 | 1.00", "failed: killed by SIGKILL"),
    ],
)
def test_the_table_has_a_row_for_each_training_whatever_failed(results, first, peers):
    lines = train_8b.table(results, "a GPU").splitlines()
    assert len({line.count("|") for line in lines}) == 1
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines[2:]}
    assert rows.keys() == results.keys()
    assert first in rows.get(OURS, "") and peers in rows[PEER]


def test_the_base_is_made_before_the_first_part_that_needs_it():
    assert train_8b.with_base(["machine", OURS]) == ["machine", "base", OURS]
    assert train_8b.with_base(["machine"]) == ["machine"]
    assert train_8b.with_base(list(PARTS)) == list(PARTS)


def test_a_part_that_could_outlast_the_budget_is_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_8b, "run", lambda *_, **__: pytest.fail("a part was begun"))
    session = Session("a GPU", time.perf_counter(), 30, tmp_path, {})
    for name in PARTS:
        session.perform(name)
    assert "machine: left out, it may take 45 s and 30 are left" in capsys.readouterr().out
    Session("CPU", time.perf_counter(), 1e9, tmp_path, {}).perform("ours-liger-lora-2048")
    assert "left out, no GPU" in capsys.readouterr().out
