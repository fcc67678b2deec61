"""The whole pipeline, as a user runs it: in a fresh checkout, through dvc, git and the config guard."""

import re
import shutil
from pathlib import Path

import pytest

from stages.lib.core.files import read_json, sha256
from support.checkout import call, commit, done, fresh_checkout, ran

SMOKE = ["dvc", "exp", "run", "-S", "+experiment=smoke"]
TYPES = ["-S", "export.types=[q4_K_M,q5_K_M]"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The working tree's files in a repository of their own, after a smoke run."""
    folder = tmp_path_factory.mktemp("smoke") / "checkout"
    fresh_checkout(folder)
    output = done(folder, *SMOKE)
    assert len(ran(output)) == 19, output
    commit(folder)
    return folder


def test_every_model_is_measured_and_reported(checkout):
    for name in ("base", "tuned", "q4_K_M"):
        metrics = read_json(checkout / f"metrics/models/{name}/scores.json")
        assert metrics["perplexity"] > 1 and 0 <= metrics["accuracy"] <= 1 and 0 <= metrics["bleu"] <= 100
        assert f"| {name} |" in (checkout / "results.md").read_text()
    assert "Synthetic data" in (checkout / "results.md").read_text()
    page = (checkout / "report.html").read_text()
    assert "<svg" in page and not re.search(r'(src|href)="?http', page)


def test_nothing_is_left_to_do(checkout):
    assert "up to date" in done(checkout, "dvc", "repro")
    assert "up to date" in done(checkout, "dvc", "status")
    assert done(checkout, "git", "status", "--porcelain") == ""


def test_pull_brings_the_same_bytes_and_notices_wrong_ones(checkout):
    done(checkout, "dvc", "push")
    other = checkout.parent / "other"
    done(checkout.parent, "git", "clone", "--quiet", "checkout", "other")
    done(other, "dvc", "pull")
    models = sorted((checkout / "models").rglob("*.gguf")) + sorted((checkout / "models").rglob("*.safetensors"))
    assert len(models) == 7
    for path in models:
        assert sha256(path) == sha256(other / path.relative_to(checkout))
    assert "up to date" in done(other, "dvc", "status")

    pushed = [path for path in (checkout.parent / "llama3-chatdoctor-remote").rglob("*") if path.is_file()]
    largest = max(pushed, key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    with largest.open("r+b") as file:
        file.seek(5000)
        file.write(b"\x00\xff\x00\xff")
    shutil.rmtree(other)
    done(checkout.parent, "git", "clone", "--quiet", "checkout", "other")
    assert call(other, "dvc", "pull").returncode != 0


def test_a_gguf_knows_its_commit_and_an_altered_one_is_called_out(checkout):
    commit = done(checkout, "git", "rev-parse", "HEAD").strip()
    for kind in ("f16", "q4_K_M", "lora-f16"):
        said = done(checkout, "python", "-m", "inference.lineage", f"models/gguf/llama3-chat-doctor-{kind}.gguf")
        assert f"commit: {commit}" in said and "unaltered: " in said and "not a medical device" in said
        assert f"dvc get . models/merged --rev {commit}" in said
    altered = checkout.parent / "llama3-chat-doctor-q4_K_M.gguf"
    data = bytearray((checkout / f"models/gguf/{altered.name}").read_bytes())
    data[-1] ^= 1
    altered.write_bytes(data)
    result = call(checkout, "python", "-m", "inference.lineage", str(altered))
    assert result.returncode == 1 and "ALTERED" in result.stderr and f"commit: {commit}" in result.stdout
    altered.write_bytes(data[:1000])
    result = call(checkout, "python", "-m", "inference.lineage", str(altered))
    assert result.returncode == 1 and "not a GGUF, or cut off" in result.stderr and "Traceback" not in result.stderr


def test_another_quant_type_runs_alone_and_going_back_runs_nothing(checkout):
    assert ran(done(checkout, *SMOKE, *TYPES)) == [
        "config",
        *(f"{stage}@q5_K_M" for stage in ("quantize", "verify", "predict", "score")),
        "report",
    ]
    assert "| q5_K_M |" in (checkout / "results.md").read_text()
    assert ran(done(checkout, *SMOKE)) == []
    assert "q5_K_M" not in (checkout / "results.md").read_text()
    assert done(checkout, "git", "status", "--porcelain", "params.yaml", "results.md", "report.html") == ""


@pytest.mark.parametrize("target", [[], ["train"]])
def test_an_edited_conf_is_never_ignored(checkout, target):
    edited = checkout / "conf/train/lora.yaml"
    original = edited.read_text()
    edited.write_text(original.replace("  r: ", "  r: 1"))
    try:
        result = call(checkout, "dvc", "repro", *target)
        assert result.returncode != 0
        assert "dvc exp run" in result.stderr and "Traceback" not in result.stderr
        assert (checkout / "models/adapter/adapter_model.safetensors").is_file()
    finally:
        edited.write_text(original)


@pytest.mark.parametrize("change", ["train.lora.r=0", "export.types=[q9_K]", "+train.lorra=3"])
def test_a_bad_value_is_one_sentence_and_earlier_outputs_stay(checkout, change):
    result = call(checkout, *SMOKE, "-S", change)
    assert result.returncode != 0 and "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if ": params.yaml: " in line]
    assert change.strip("+").split("=")[0] in line
    assert (checkout / "models/base/model.safetensors").is_file() and (checkout / "data/tokenized/train").is_dir()
    assert ran(done(checkout, *SMOKE)) == []  # whatever DVC took away comes back from its cache


def test_the_8b_recipe_composes_and_plans_every_stage(checkout):
    plan = ran(done(checkout, "dvc", "exp", "run", "-S", "+experiment=chatdoctor-8b", *TYPES, "--dry", "--force"))
    types, models = ("q4_K_M", "q5_K_M"), ("base", "tuned", "q4_K_M", "q5_K_M")
    quantize = [f"quantize@{name}" for name in types]
    verify = [f"verify@{name}" for name in ("f16", *types)]
    predict = [f"predict@{name}" for name in models]
    score = [f"score@{name}" for name in models]
    single = ["config", "fetch", "prepare", "base", "tokenize", "train", "merge", "convert", "imatrix"]
    assert plan == [*single, *quantize, *verify, *predict, *score, "report"]
