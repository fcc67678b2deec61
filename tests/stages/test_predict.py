"""predict and score: every model is asked the same, and what cannot be asked is said."""

import shutil

import pytest

from stages import predict, score
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, read_jsonl, write_jsonl
from stages.lib.data.medqa import OPTION_LETTERS, question_prompt
from stages.lib.data.safety_prompts import read_prompts
from stages.lib.evaluation.metrics.comparison import TOO_FEW, compare
from stages.lib.settings.predict import Predict
from support.sample import conversations
from support.settings import ROOT

SETTINGS = Predict(dialogues=0, answers=6, questions=0, shuffles=2, max_new_tokens=24, context=512, batch_tokens=4096)
SAFETY = ROOT / "data/safety"


def questions(count: int) -> list[dict]:
    """Of four, three, five and two options in turn; the right one is the last."""
    rows = []
    for i in range(count):
        letters = OPTION_LETTERS[: (4, 3, 5, 2)[i % 4]]
        options = {letter: f"choice {i} {letter.lower()}" for letter in letters}
        about = {"id": f"{i:016x}", "question": f"Which is {i}?", "options": options, "answer_idx": letters[-1]}
        asked = [{"role": "user", "content": question_prompt(about["question"], options)}]
        rows.append(about | {"meta_info": f"step{1 + i % 2}", "messages": asked})
    return rows


@pytest.fixture(scope="module")
def models(base, adapter, merged, gguf, tmp_path_factory):
    """The folder of models, and the prepared test data beside it."""
    folder = tmp_path_factory.mktemp("evaluated")
    for name, source in (("base", base), ("adapter", adapter), ("merged", merged)):
        shutil.copytree(source, folder / "models" / name)
    shutil.copyfile(gguf, folder / "models/f16.gguf")
    write_jsonl(folder / "prepared/test.jsonl", conversations(12))
    write_jsonl(folder / "prepared/medqa_test.jsonl", questions(12))
    return folder


def measured(models, metrics, name, path, prepared=None):
    """The predictions of a model, and what they are worth."""
    places = (models / "models", prepared or models / "prepared", models / "models/base")
    predict.main(SETTINGS, predict.Files(*places, SAFETY / "prompts.jsonl", metrics), name, path)
    score.main(SAFETY, metrics, name)
    rows = [row for _, row in read_jsonl(metrics / f"models/{name}/predictions.jsonl")]
    return rows, read_json(metrics / f"models/{name}/scores.json")


def test_adapter_merged_and_gguf_say_the_same(models, tmp_path):
    asked = {"adapter": "adapter", "tuned": "merged", "f16": "f16.gguf", "base": "base"}
    seen = {name: measured(models, tmp_path, name, path) for name, path in asked.items()}
    rows, metrics = seen["tuned"]
    kinds = [row["kind"] for row in rows]
    prompts = read_prompts(SAFETY / "prompts.jsonl")
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == {
        "likelihood": 12, "dialogue": 6, "medqa": 12, "medqa_shuffled": 24, "safety": len(prompts),
    }  # fmt: skip
    for name in ("adapter", "f16"):
        found = compare(rows, seen[name][0])
        assert abs(found["perplexity"]["difference"]) < 0.01 * metrics["perplexity"]
        assert {one["verdict"] for one in found.values()} == {TOO_FEW}
        letters = [[row["letter"] for row in some if row["kind"] == "medqa"] for some in (rows, seen[name][0])]
        assert sum(a == b for a, b in zip(*letters, strict=True)) >= 11
    assert compare(seen["base"][0], rows)["perplexity"]["difference"] < -0.1 * metrics["perplexity"]
    exam = [row for row in rows if row["kind"] == "medqa"]
    assert [len(row["probabilities"]) for row in exam] == 3 * [4, 3, 5, 2]
    assert metrics["correct"] == {"A": 0, "B": 3, "C": 3, "D": 3, "E": 3}
    assert metrics["shuffled"]["repeats"] == 2 and metrics["by_step"]["step2"]["questions"] == 6
    again, same = measured(models, tmp_path / "again", "tuned", "merged")
    assert again == rows and same == metrics


def test_what_cannot_be_asked_is_one_sentence(models, tmp_path):
    for name, rows, words in (
        ("test.jsonl", [], "no dialogue fits"),
        ("medqa_test.jsonl", [], "no question there"),
        (
            "medqa_test.jsonl",
            [questions(1)[0] | {"messages": [{"role": "user", "content": "word " * 900}]}],
            "raise it",
        ),
    ):
        prepared = tmp_path / "prepared"
        shutil.copytree(models / "prepared", prepared, dirs_exist_ok=True)
        write_jsonl(prepared / name, rows)
        with pytest.raises(UserError, match=words):
            measured(models, tmp_path, "base", "base", prepared=prepared)
    other = tmp_path / "other"
    shutil.copytree(models, other)
    (other / "models/base/chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        measured(other, tmp_path, "base", "base")
    assert not (tmp_path / "models").exists()
