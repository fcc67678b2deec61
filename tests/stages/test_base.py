"""The base: Llama-3's tokenizer layout, and a template that changes no token id."""

import http.server
import shutil
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from stages.lib.base import scratch
from stages.lib.base.hub import download
from stages.lib.base.scratch import from_scratch
from stages.lib.base.template import install_template, rename_tokens
from stages.lib.core.errors import UserError
from stages.lib.model.loading import load_model, load_tokenizer
from stages.lib.settings.model import Hub
from support.disk import no_file_beyond
from support.settings import CHATML, LLAMA3, SHAPE


def test_special_tokens_stand_where_llama3_has_them():
    tokens = scratch.special_tokens()
    # ids of Llama-3's tokenizer less 128000
    known = {
        0: "<|begin_of_text|>",
        1: "<|end_of_text|>",
        2: "<|reserved_special_token_0|>",
        6: "<|start_header_id|>",
        7: "<|end_header_id|>",
        8: "<|reserved_special_token_4|>",
        9: "<|eot_id|>",
        255: "<|reserved_special_token_250|>",
    }
    assert {i: tokens[i] for i in known} == known
    assert len(set(tokens)) == 256


def test_shape_is_llama3s(base):
    config = load_model(base).config
    assert config.architectures == ["LlamaForCausalLM"]
    assert config.rope_parameters["rope_theta"] == 500000.0
    assert config.num_key_value_heads < config.num_attention_heads
    assert not config.tie_word_embeddings
    assert config.vocab_size == len(load_tokenizer(base)) == SHAPE.vocab_size


def test_weights_that_cannot_be_written_are_an_error_that_the_stage_knows(prepared, tmp_path):
    with no_file_beyond(50_000), pytest.raises(OSError, match="base not written: "):
        from_scratch(replace(SHAPE, num_train_steps=1), prepared / "train.jsonl", tmp_path / "base", seed=1)


def test_template_moves_no_token_id(base, tmp_path):
    other = tmp_path / "llama3"
    shutil.copytree(base, other)
    rename_tokens(other / "tokenizer.json", {new: old for old, new in CHATML.renamed_tokens.items()})
    install_template(other, LLAMA3)
    chatml, llama3 = load_tokenizer(base), load_tokenizer(other)
    renamed = {CHATML.renamed_tokens.get(token, token): i for token, i in llama3.get_vocab().items()}
    assert renamed == chatml.get_vocab()
    text = "Fever of 39.5°C,頭痛, and a rash.\n\nNo allergies 🤒"
    assert chatml(text).input_ids == llama3(text).input_ids
    assert chatml(text).input_ids.count(chatml.bos_token_id) == 1


def test_a_marker_that_the_vocabulary_lacks_is_an_error(base, tmp_path):
    with pytest.raises(UserError, match="no_such_token"):
        shutil.copytree(base, tmp_path / "copy")
        rename_tokens(tmp_path / "copy/tokenizer.json", {"<|no_such_token|>": "<|x|>"})


def test_too_little_text_for_the_vocabulary_is_an_error():
    with pytest.raises(UserError, match="yields just"):
        scratch.train_tokenizer(["a short text"], 1024)


@pytest.fixture
def hub(monkeypatch):
    """A hub on loopback that answers each request with one status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        status, code = 404, ""

        def do_GET(self):
            self.send_response(self.status)
            if self.code:
                self.send_header("X-Error-Code", self.code)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for module in ("huggingface_hub.constants", "huggingface_hub.hf_api"):
        monkeypatch.setattr(f"{module}.ENDPOINT", address, raising=False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))
    yield Handler
    server.shutdown()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "GatedRepo", "accept the licence"),
        (401, "RepoNotFound", "HF_TOKEN"),
        (404, "RevisionNotFound", "no such revision: correct `revision` in conf/model/"),
        (500, "", "could not be downloaded: the server answered 500"),
    ],
)
def test_a_refused_download_says_what_to_do(hub, tmp_path, status, code, message):
    hub.status, hub.code = status, code
    with pytest.raises(UserError, match=message) as error:
        download(Hub("meta-llama/Some-Model", "a" * 40, 0.001), tmp_path / "base")
    assert "meta-llama/Some-Model" in str(error.value)


def test_a_full_disk_is_noticed_before_the_download(tmp_path):
    with pytest.raises(UserError, match="make room"):
        download(Hub("meta-llama/Some-Model", "a" * 40, 1e9), tmp_path / "base")
