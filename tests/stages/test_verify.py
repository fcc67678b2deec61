"""The proof holds of what was exported, and fails of anything else."""

import shutil
import subprocess
import sys

import pytest

from conftest import conversations
from stages import verify
from stages.lib import llamacpp, paths
from stages.lib.errors import UserError
from stages.lib.files import read_json, write_jsonl
from stages.lib.schema import Verify

SETTINGS = Verify(dialogues=20, prompts=5, max_new_tokens=250, context=512)


@pytest.fixture(scope="module")
def exported(base, adapter, merged, gguf, tmp_path_factory):
    """What the stage reads: (prepared, base, adapter, merged, folder of GGUFs)"""
    folder = tmp_path_factory.mktemp("exported")
    write_jsonl(folder / "prepared/test.jsonl", conversations(40))
    (folder / "gguf").mkdir()
    shutil.copyfile(gguf, folder / "gguf" / paths.gguf("f16").name)
    for kind in ("q4_K_M", "q8_0"):
        llamacpp.quantize(gguf, folder / "gguf" / paths.gguf(kind).name, kind)
    return folder / "prepared", base, adapter, merged, folder / "gguf"


def test_everything_holds_of_the_float16_gguf(exported, tmp_path):
    verify.main(SETTINGS, *exported, tmp_path, "f16")
    result = read_json(tmp_path / "verify/f16.json")
    assert len(result["checks"]) == 8 and all(check["holds"] for check in result["checks"])
    (tokens,) = [check["seen"] for check in result["checks"] if check["check"] == "the same token ids"]
    assert int(tokens.split(" of ")[1].split()[0]) >= 300
    assert result["kl_mean"] < 1e-4 and result["perplexity_ratio"] == pytest.approx(1, abs=1e-3)


def test_a_finer_type_is_nearer(exported, tmp_path):
    for kind in ("q4_K_M", "q8_0"):
        verify.main(SETTINGS, *exported, tmp_path, kind)
    coarse, fine = (read_json(tmp_path / f"verify/{kind}.json") for kind in ("q4_K_M", "q8_0"))
    assert 0 < fine["kl_mean"] < coarse["kl_mean"] and fine["same_top"] > coarse["same_top"]
    assert coarse["fallback"] == 0 and coarse["types"]["Q4_K"] > 0 and fine["types"].keys() == {"F32", "Q8_0"}


def test_another_models_gguf_is_refused(exported, base, tmp_path):
    """The base's in the place of the tuned model's: the same tokens, other predictions."""
    prepared, _, adapter, merged, _ = exported
    llamacpp.convert(base, tmp_path / "gguf" / paths.gguf("f16").name, {})
    with pytest.raises(UserError, match=r"not the model that was trained; .*the same top token at 99.5%"):
        verify.main(SETTINGS, prepared, base, adapter, merged, tmp_path / "gguf", tmp_path, "f16")
    failed = {c["check"] for c in read_json(tmp_path / "verify/f16.json")["checks"] if not c["holds"]}
    assert {"divergence under 0.0001 nats", "the same top token at 99.5% of positions"} <= failed
    assert "the same token ids" not in failed


def test_another_end_token_or_template_is_refused(exported, tmp_path):
    prepared, base, adapter, merged, folder = exported
    altered = tmp_path / "gguf" / paths.gguf("f16").name
    altered.parent.mkdir()
    arguments = [str(folder / altered.name), str(altered), "--chat-template", "{{ messages[0].content }}", "--force"]
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--special-token", "eos", "<|end_of_text|>"]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    with pytest.raises(UserError) as caught:
        verify.main(SETTINGS, prepared, base, adapter, merged, altered.parent, tmp_path, "f16")
    assert "the same stop tokens" in str(caught.value) and "the same prompts in llama-server" in str(caught.value)
