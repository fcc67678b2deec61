"""The proof holds of what was exported, and fails of anything else."""

import os
import shutil
import subprocess
import sys

import pytest

from stages import verify
from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, sha256, write_json, write_jsonl
from stages.lib.evaluation.engines.batches import greedy
from stages.lib.evaluation.engines.gguf_model import GgufModel
from stages.lib.evaluation.engines.transformers_model import TransformersModel
from stages.lib.evaluation.verification import divergence, parity
from stages.lib.export import adapter_gguf, llama_server, llamacpp
from stages.lib.model import chat
from stages.lib.model.loading import load_tokenizer
from stages.lib.settings.verify import Verify
from support.sample import conversations

EVERY_KIND = True
SETTINGS = Verify(dialogues=20, prompts=5, max_new_tokens=250, context=512)
LORA = paths.gguf(paths.LORA).name
ADAPTER = "mean KL divergence of the adapter's GGUF over the base's"
LINEAGE = {"chatdoctor.notice": "test", "chatdoctor.dvc.models/merged": "0123.dir"}


@pytest.fixture(scope="module")
def exported(base, adapter, merged, tmp_path_factory):
    """What the stage reads and writes."""
    folder = tmp_path_factory.mktemp("exported")
    write_jsonl(folder / "prepared/test.jsonl", conversations(40))
    f16 = folder / "gguf" / paths.gguf("f16").name
    llamacpp.convert(merged, f16, LINEAGE)
    adapter_gguf.convert_adapter(base, adapter, "lora", f16.with_name(LORA), LINEAGE)
    for kind in ("q4_K_M", "q8_0"):
        llamacpp.quantize(f16, f16.with_name(paths.gguf(kind).name), kind, {})
    return verify.Files(folder / "prepared", base, adapter, merged, folder / "gguf", folder / "metrics")


@pytest.fixture(scope="module")
def model(exported):
    loaded = GgufModel(exported.ggufs / paths.gguf("f16").name, SETTINGS.context)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(base)


def copy_adapter(exported, folder):
    shutil.copyfile(exported.ggufs / LORA, folder / LORA)


def written(files, name):
    return read_json(paths.verification(files.metrics, name))


def test_everything_holds_of_the_float16_gguf(exported, kind):
    verify.main(SETTINGS, exported, "f16")
    result = written(exported, "f16")
    assert [check["check"] for check in result["checks"]].count(ADAPTER) == (0 if kind.tied else 1)
    assert len(result["checks"]) >= 8 and all(check["holds"] for check in result["checks"])
    assert all(set(check) == {"check", "holds", "observed", "limit"} and check["limit"] for check in result["checks"])
    (tokens,) = [check["observed"] for check in result["checks"] if check["check"] == "the same token ids"]
    assert int(tokens.split(" of ")[1].split()[0]) >= 300
    assert result["kl_mean"] < 1e-4 and result["perplexity_ratio"] == pytest.approx(1, abs=1e-3)
    assert result["top1_agreement"] > 0.99


@pytest.mark.parametrize("name", ["f16", "q8_0"])
def test_one_model_is_in_memory_at_a_time(name, exported, monkeypatch):
    """At 8B two would be 32 GB, on a GPU too; llama.cpp's tools load the file once more, beside none of ours."""
    loaded = []

    def watch(owner, opened, closed):
        make, close = getattr(owner, opened), getattr(owner, closed)

        def making(self, *given, **named):
            assert not loaded
            loaded.append(self)
            make(self, *given, **named)

        def closing(self):
            loaded.remove(self)
            close(self)

        monkeypatch.setattr(owner, opened, making)
        monkeypatch.setattr(owner, closed, closing)

    for model in (TransformersModel, GgufModel):
        watch(model, "__init__", "close")
    for module, tool in ((llama_server, "serving"), (llamacpp, "perplexity")):
        real = getattr(module, tool)
        monkeypatch.setattr(module, tool, lambda *given, real=real: pytest.fail("beside") if loaded else real(*given))
    verify.main(SETTINGS, exported, name)
    assert not loaded and written(exported, name)["measured_with"] == llamacpp.version()
    assert os.environ["GGML_CUDA_CUBLAS_COMPUTE_TYPE"] == "f32" and os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    assert {path.suffix for path in exported.ggufs.iterdir()} == {".gguf"}  # what was recorded is gone


def test_a_finer_type_is_nearer_and_each_is_known_by_its_bytes(exported):
    for kind in ("q4_K_M", "q8_0"):
        verify.main(SETTINGS, exported, kind)
        gguf, result = exported.ggufs / paths.gguf(kind).name, written(exported, kind)
        assert result["bytes"] == gguf.stat().st_size and result["sha256"] == sha256(gguf)
        assert result["lineage"] == LINEAGE and result["checks"] == []
    coarse, fine = (written(exported, kind) for kind in ("q4_K_M", "q8_0"))
    assert 0 < fine["kl_mean"] < coarse["kl_mean"] and fine["top1_agreement"] > coarse["top1_agreement"]
    assert coarse["fallbacks"] == {} and coarse["types"]["Q4_K"] > 0 and fine["types"].keys() == {"F32", "Q8_0"}


def test_another_models_gguf_is_refused(exported, tmp_path):
    """The base's in the place of the tuned model's: the same tokens, other predictions."""
    llamacpp.convert(exported.base, tmp_path / "gguf" / paths.gguf("f16").name, LINEAGE)
    copy_adapter(exported, tmp_path / "gguf")
    files = exported._replace(ggufs=tmp_path / "gguf", metrics=tmp_path)
    with pytest.raises(
        UserError, match=r"not the model that was trained; .*top-1 agreement .*, expected at least 99.5%"
    ):
        verify.main(SETTINGS, files, "f16")
    failed = {check["check"] for check in written(files, "f16")["checks"] if not check["holds"]}
    wrong = {"mean KL divergence from the merged model", "top-1 agreement with the merged model"}
    assert wrong <= failed and "the same token ids" not in failed


def test_another_end_token_or_template_is_refused(exported, tmp_path):
    altered = tmp_path / "gguf" / paths.gguf("f16").name
    altered.parent.mkdir()
    copy_adapter(exported, altered.parent)
    given = exported.ggufs / altered.name
    arguments = [str(given), str(altered), "--chat-template", "{{ messages[0].content }}", "--force"]
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--special-token", "eos", "<|end_of_text|>"]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    with pytest.raises(UserError) as caught:
        verify.main(SETTINGS, exported._replace(ggufs=altered.parent, metrics=tmp_path), "f16")
    assert "the same stop tokens" in str(caught.value) and "the same prompts in llama-server" in str(caught.value)


def test_a_gguf_without_lineage_is_refused(exported, gguf, tmp_path):
    (tmp_path / "gguf").mkdir()
    shutil.copyfile(exported.ggufs / paths.gguf("f16").name, tmp_path / "gguf" / paths.gguf("f16").name)
    llamacpp.quantize(gguf, tmp_path / "gguf" / paths.gguf("q8_0").name, "q8_0", {})
    with pytest.raises(UserError, match=r"no key begins with chatdoctor\."):
        verify.main(SETTINGS, exported._replace(ggufs=tmp_path / "gguf", metrics=tmp_path), "q8_0")


def test_other_token_ids_are_noticed(model, tokenizer, monkeypatch):
    """A control token that a patient spells, read as one."""
    plain = model.tokenize
    monkeypatch.setattr(model, "tokenize", lambda text, special: plain(text, special=True))
    check = parity.token_ids(tokenizer, model)
    assert not check.holds and check.limit == "none" and "texts differ, e.g. " in check.observed


def test_an_answer_that_only_the_gguf_does_not_end_is_noticed(model, tokenizer, exported):
    asked = [chat.prompt_ids(tokenizer, row["messages"][:-1]) for row in conversations(3)]
    merged = TransformersModel(exported.merged)
    said = greedy(merged, asked, 9, set(), "what it says")
    stop_ids = {ids[-1] for ids in said}  # so that every answer ends, however little the model has learnt
    wanted, answers = (greedy(one, asked, 9, stop_ids, "what it says") for one in (merged, model))
    check = parity.answers_end(wanted, answers, 9)
    assert check.holds and check.observed == "3 of 3, of 3 prompts within 9 tokens"
    endings = parity.answers_end([[300]] * 3, [[300]] * 3, 1)
    assert endings.holds and endings.observed.startswith("0 of 0")
    check = parity.answers_end(wanted, [[300] * 9] * 3, 9)
    assert not check.holds and check.observed.startswith("0 of 3")


def test_another_perplexity_is_noticed(model, tokenizer, kind, monkeypatch):
    """Where the chunks begin without the BOS that is put, or with one where none is put."""
    text = "\n\n".join(message["content"] for row in conversations(40) for message in row["messages"])
    monkeypatch.setattr(parity, "PERPLEXITY", 1e-5)  # one token of 128 matters little to so small a model
    for token, holds in ((tokenizer.bos_token_id, kind.bos), (None, not kind.bos)):
        assert parity.same_perplexity(parity.perplexity_of(model, text, token), model.path, text).holds == holds


def test_a_merge_that_changes_the_logits_is_noticed(exported, tokenizer):
    ids = [chat.prompt_ids(tokenizer, row["messages"]) for row in conversations(2)]
    merged = TransformersModel(exported.merged)
    check = divergence.merged_logits(TransformersModel(exported.base), merged, ids)
    assert not check.holds and check.limit == "at most 0.005 of their spread" and float(check.observed) > 0.02


def test_an_adapters_gguf_of_another_scale_is_noticed(exported, kind, tmp_path):
    """Nothing but this check loads that file; of tied embeddings it is empty, and nothing is checked."""
    shutil.copytree(exported.adapter, tmp_path / "adapter")
    settings = read_json(tmp_path / "adapter/adapter_config.json")
    write_json(tmp_path / "adapter/adapter_config.json", settings | {"lora_alpha": 2 * settings["lora_alpha"]})
    shutil.copytree(exported.ggufs, tmp_path / "gguf")
    adapter_gguf.convert_adapter(exported.base, tmp_path / "adapter", "lora", tmp_path / "gguf" / LORA, LINEAGE)
    files = exported._replace(ggufs=tmp_path / "gguf", metrics=tmp_path)
    if kind.tied:
        assert (tmp_path / "gguf" / LORA).stat().st_size == 0
        verify.main(SETTINGS, files, "f16")
    else:
        with pytest.raises(UserError, match="mean KL divergence of the adapter's GGUF"):
            verify.main(SETTINGS, files, "f16")
