"""A base from the hub: no byte comes twice, nothing is asked for that is there, and a refusal says what to do."""

import hashlib
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from stages.lib.base.hub import download, take_over
from stages.lib.base.template import install_template
from stages.lib.core.errors import UserError
from stages.lib.settings.model import Hub
from support.hub import COMMIT, serving, take_for_the_hub
from support.pretrained import llama
from support.settings import CHATML

REPO = "house/llama"
BASE = Hub(REPO, COMMIT)
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, bytes]:
    """The files of a repo as publishers leave them, other formats included."""
    folder = llama(tmp_path_factory.mktemp("hub") / "llama", shard="200KB")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [name for name in sorted(files) if name.endswith(".safetensors")] == SHARDS
    return files | {"LICENSE": b"of weights", "original/model.safetensors": b"again", "pytorch_model.bin": b"pickled"}


@pytest.fixture
def hub(published, tmp_path, monkeypatch):
    """A hub that has one model, with an empty cache and no token."""
    with serving() as server:
        server.models[REPO] = published
        take_for_the_hub(server.address, tmp_path, monkeypatch)
        yield server
        huggingface_hub.utils.close_session()


def refused(hub: Hub) -> str:
    with pytest.raises(UserError) as error:
        download(hub)
    assert "\n" not in str(error.value)
    return str(error.value)


def asked_for(hub, content: bytes) -> list[dict]:
    return [request for request in hub.bodies() if hashlib.sha256(content).hexdigest() in request["path"]]


def test_weights_are_links_to_the_cache_and_a_template_does_not_reach_it(hub, published, tmp_path):
    base = tmp_path / "base"
    take_over(BASE, base)
    cached = {path.name: path for path in download(BASE).iterdir()}
    assert (
        set(cached)
        == {path.name for path in base.iterdir()}
        == set(published)
        - {
            "original/model.safetensors",
            "pytorch_model.bin",
        }
    )
    assert {name for name in cached if (base / name).samefile(cached[name])} == set(SHARDS)
    install_template(base, CHATML)
    assert all(path.read_bytes() == published[name] for name, path in cached.items())


def test_a_download_that_breaks_off_keeps_the_shards_that_are_whole(hub, published):
    first, second = (published[name] for name in SHARDS)
    hub.broken = second
    assert "check the network, run again" in refused(BASE)
    hub.requests.clear()
    hub.broken = b""
    assert (download(BASE) / SHARDS[1]).read_bytes() == second
    assert not asked_for(hub, first) and asked_for(hub, second)


@pytest.mark.parametrize("way", ["offline", "gone"])
def test_what_is_in_the_cache_needs_no_hub(hub, tmp_path, monkeypatch, way):
    download(BASE)
    hub.requests.clear()
    if way == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    take_over(BASE, tmp_path / "base")
    assert not hub.requests


@pytest.mark.parametrize("way", ["offline", "gone"])
def test_half_a_cache_is_no_base(hub, published, tmp_path, monkeypatch, way):
    hub.broken = published[SHARDS[1]]
    refused(BASE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", way == "offline")
    if way == "gone":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = refused(BASE)
    assert f"{REPO} at revision {COMMIT}" in message
    assert ("unset HF_HUB_OFFLINE" if way == "offline" else "check the network") in message


@pytest.mark.parametrize(
    ("fault", "asked", "message"),
    [
        ({"gated": True}, BASE, "accept the licence"),
        ({}, Hub("house/none", COMMIT), "HF_TOKEN"),
        ({}, Hub(REPO, "d" * 40), "no such revision: correct `revision` in conf/model/"),
        ({"failures": [500] * 30}, BASE, "could not be downloaded: the server answered 500"),
    ],
)
def test_a_refused_download_says_what_to_do(hub, fault, asked, message):
    vars(hub).update(fault)
    text = refused(asked)
    assert message in text and asked.repo in text


def test_a_full_disk_is_noticed_before_the_download(hub, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2_000))
    assert "make room" in refused(BASE)
    assert not [request for request in hub.bodies() if "/cdn/" in request["path"]]


def test_what_is_no_llama_is_not_taken_over(hub, published, tmp_path):
    hub.models[REPO] = {name: content for name, content in published.items() if name != "tokenizer.json"}
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file"):
        take_over(BASE, tmp_path / "base")
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    ("repo", "revision", "key"),
    [
        ("llama", COMMIT, "model.hub.repo"),
        ("a/b/c", COMMIT, "model.hub.repo"),
        ("https://huggingface.co/a/b", COMMIT, "model.hub.repo"),
        (REPO, "main", "model.hub.revision"),
        (REPO, COMMIT[:12], "model.hub.revision"),
    ],
)
def test_a_malformed_name_is_refused_before_anything_is_asked(repo, revision, key):
    with pytest.raises(UserError) as error:
        Hub(repo, revision)
    assert key in str(error.value) and "\n" not in str(error.value)
