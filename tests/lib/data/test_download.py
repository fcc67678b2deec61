"""Downloads: every byte arrives once, nothing wrong is kept, and each failure is one sentence that says what to do."""

import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from stages.lib.core.errors import UserError
from stages.lib.core.files import copy_verified
from stages.lib.data.sources import download
from stages.lib.data.sources.download import discard, from_http, from_hub
from support.hub import COMMIT, serving, take_for_the_hub
from support.settings import ROOT

CONTENT = random.Random(5).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REPO, FILE = "house/dialogues", "data/dialogues.json"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.01)


@pytest.fixture
def server():
    with serving() as state:
        state.files["/file.json"] = CONTENT
        state.datasets[REPO] = {FILE: CONTENT}
        yield state


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The server as the hub, with an empty cache and no token."""
    take_for_the_hub(server.address, tmp_path, monkeypatch)
    yield server
    huggingface_hub.utils.close_session()


def refused(get, *arguments) -> str:
    with pytest.raises(UserError) as error:
        get(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def environment(**changes) -> dict:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return inherited | {"PYTHONPATH": str(ROOT)} | changes


def sent(server) -> int:
    return sum(request["sent"] for request in server.bodies())


def blobs(tmp_path) -> list[Path]:
    return [path for path in (tmp_path / "hub").glob("datasets--*/blobs/*") if path.suffix != ".lock"]


@pytest.fixture(params=["http", "hub", "hub, in Git"])
def fetched(request, hub, tmp_path):
    """A download of the same content by each way."""
    hub.git = request.param.endswith("Git")
    if request.param == "http":
        return lambda: from_http(f"{hub.address}/file.json", SHA256, tmp_path / "downloads")
    return lambda: from_hub(REPO, COMMIT, FILE)


def test_the_bytes_are_right_and_come_once(fetched, hub):
    assert fetched().read_bytes() == CONTENT
    hub.requests.clear()
    assert fetched().read_bytes() == CONTENT
    assert not hub.requests


@pytest.mark.parametrize("reset", [False, True])
def test_a_dropped_connection_resumes(fetched, hub, reset):
    hub.drops, hub.reset = 2, reset
    assert fetched().read_bytes() == CONTENT
    first, second, third = hub.bodies()
    assert "Range" not in first["headers"]
    assert [second["headers"]["Range"], third["headers"]["Range"]] == ["bytes=1500000-", "bytes=2250000-"]
    assert second["headers"]["If-Range"].startswith('"')
    assert sent(hub) == len(CONTENT)


def test_a_server_that_cannot_resume_starts_from_zero(fetched, hub):
    hub.drops, hub.ranges = 1, False
    assert fetched().read_bytes() == CONTENT
    assert sent(hub) == 1.5 * len(CONTENT)


def test_a_file_that_changes_between_two_attempts_is_not_mixed(server, tmp_path, monkeypatch):
    server.files["/file.json"], server.drops = bytes(len(CONTENT)), 1
    monkeypatch.setattr(time, "sleep", lambda _: server.files.update({"/file.json": CONTENT}))
    assert from_http(f"{server.address}/file.json", SHA256, tmp_path).read_bytes() == CONTENT
    assert "If-Range" in server.requests[1]["headers"]


def test_a_server_gone_for_good_is_an_error_and_the_next_run_resumes(fetched, hub, tmp_path):
    hub.drops = -1
    message = refused(fetched)
    assert "could not be downloaded" in message and "the same command resumes" in message and "dvc pull" in message
    assert len(hub.bodies()) == download.ATTEMPTS
    (partial,) = [*tmp_path.rglob("*.partial"), *tmp_path.rglob("*.incomplete")]
    kept = partial.stat().st_size
    assert kept == sent(hub) < len(CONTENT)
    hub.drops = 0
    hub.requests.clear()
    assert fetched().read_bytes() == CONTENT
    assert hub.bodies()[0]["headers"]["Range"] == f"bytes={kept}-"
    assert sent(hub) == len(CONTENT) - kept
    assert not partial.exists()


KILLED = {
    "http": "from_http(sys.argv[1] + '/file.json', sys.argv[2], Path(sys.argv[3]))",
    "hub": "from_hub(sys.argv[4], sys.argv[5], sys.argv[6])",
}


@pytest.mark.parametrize("way", KILLED)
def test_a_killed_download_resumes(way, server, tmp_path):
    server.stall = threading.Event()
    code = f"import sys; from pathlib import Path; from stages.lib.data.sources.download import *; print({KILLED[way]})"
    command = [sys.executable, "-c", code, server.address, SHA256, tmp_path / "downloads", REPO, COMMIT, FILE]
    variables = environment(HF_ENDPOINT=server.address, HF_HOME=str(tmp_path / "home"))
    process = subprocess.Popen(command, env=variables, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while sum(path.stat().st_size for path in tmp_path.rglob(f"{SHA256}.*")) < 1_000_000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.stall.set()
    server.requests.clear()
    again = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert Path(again.stdout.strip()).read_bytes() == CONTENT
    (rest,) = server.bodies()
    assert int(re.fullmatch(r"bytes=(\d+)-", rest["headers"]["Range"])[1]) >= 1_000_000
    assert rest["sent"] <= len(CONTENT) - 1_000_000


def test_a_download_killed_before_its_rename_asks_for_no_byte_again(server, tmp_path):
    (tmp_path / f"{SHA256}.partial").write_bytes(CONTENT)
    assert from_http(f"{server.address}/file.json", SHA256, tmp_path).read_bytes() == CONTENT
    assert sent(server) == 0


@pytest.mark.parametrize("left", [b"another version", bytes(4_000_000)])
def test_a_partial_file_of_other_bytes_does_no_harm(server, tmp_path, left):
    (tmp_path / f"{SHA256}.partial").write_bytes(left)
    assert from_http(f"{server.address}/file.json", SHA256, tmp_path).read_bytes() == CONTENT


def test_a_file_that_was_damaged_since_is_downloaded_again(server, tmp_path):
    (tmp_path / SHA256).write_bytes(b"damaged")
    assert from_http(f"{server.address}/file.json", SHA256, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("way", ["http", "hub", "hub, in Git"])
def test_wrong_bytes_are_not_kept_and_both_hashes_are_said(way, hub, tmp_path):
    hub.corrupt, hub.git = True, way.endswith("Git")
    if way == "http":
        message = refused(from_http, f"{hub.address}/file.json", SHA256, tmp_path / "downloads")
    else:
        message = refused(from_hub, REPO, COMMIT, FILE)
    sent_hash = hashlib.sha256(bytes(len(CONTENT))).hexdigest()
    assert "nothing was kept" in message and (hub.git or (SHA256 in message and sent_hash in message))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("before", [None, b"as it was"])
def test_a_hub_file_that_differs_from_its_pin_is_kept_nowhere(hub, tmp_path, before):
    target = tmp_path / "raw/dialogues.json"
    if before:
        target.parent.mkdir()
        target.write_bytes(before)
    found = from_hub(REPO, COMMIT, FILE)
    message = refused(copy_verified, found, target, "0" * 64)
    assert SHA256 in message and "0" * 64 in message
    assert (target.read_bytes() if before else None) == before
    assert [path.name for path in target.parent.iterdir()] == ([target.name] if before else [])
    discard(found)
    assert not os.path.lexists(found) and not blobs(tmp_path)
    assert from_hub(REPO, COMMIT, FILE).read_bytes() == CONTENT  # and it can be had again


@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_a_copy_returns_its_hash(tmp_path, sha256):
    (tmp_path / "a").write_bytes(CONTENT)
    assert copy_verified(tmp_path / "a", tmp_path / "b", sha256) == SHA256
    assert (tmp_path / "b").read_bytes() == CONTENT
    assert str(tmp_path / "c") in refused(copy_verified, tmp_path / "c", tmp_path / "b", sha256)


def test_a_failure_that_passes_is_not_an_error(fetched, hub):
    hub.failures = [503, 429]
    assert fetched().read_bytes() == CONTENT


def test_the_hub_is_down(hub):
    hub.failures = [500] * 9
    assert "the server answered 500" in refused(from_hub, REPO, COMMIT, FILE)


@pytest.mark.parametrize(
    ("token", "repo", "revision", "path", "message"),
    [
        ("", "house/none", COMMIT, FILE, "no such repo"),
        ("hf_x", "house/none", COMMIT, FILE, "no such repo"),
        ("", REPO, "d" * 40, FILE, "no such revision"),
        ("", REPO, COMMIT, "none.json", "no such file"),
        ("", "a/b/c", COMMIT, FILE, "no name of a repo"),
    ],
)
def test_what_the_hub_does_not_have(hub, monkeypatch, token, repo, revision, path, message):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    text = refused(from_hub, repo, revision, path)
    assert message in text and f"{repo} at revision {revision}, {path}" in text and "conf/data/" in text
    assert len(hub.requests) <= 2  # a refusal is not asked for again


@pytest.mark.parametrize("token", ["", "hf_of_another_account"])
def test_a_gated_repo(hub, monkeypatch, token):
    hub.gated = True
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    text = refused(from_hub, REPO, COMMIT, FILE)
    assert f"{REPO} at revision {COMMIT}, {FILE}" in text
    assert f"accept the licence on {hub.address}/datasets/{REPO}" in text and "export HF_TOKEN=" in text


def test_a_token_goes_to_the_hub_and_nowhere_else(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    from_hub(REPO, COMMIT, FILE)
    asked = [request for request in hub.requests if "/api/" not in request["path"]]
    told = {request["path"].split("/")[1] for request in asked if "Authorization" in request["headers"]}
    assert told == {"datasets"}
    assert {request["path"].split("/")[1] for request in asked} == {"datasets", "cdn"}


def test_what_huggingface_hub_reads_from_the_environment(server, tmp_path):
    code = f"from stages.lib.data.sources.download import from_hub; print(from_hub({REPO!r}, {COMMIT!r}, {FILE!r}))"
    variables = environment(HF_ENDPOINT=server.address, HF_HOME=str(tmp_path), HF_TOKEN="hf_x")

    def run(**more):
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=variables | more, cwd=ROOT, capture_output=True, text=True)

    offline = run(HF_HUB_OFFLINE="1")
    assert "UserError" in offline.stderr and "unset HF_HUB_OFFLINE" in offline.stderr.splitlines()[-1]
    assert not server.requests
    path = Path(run().stdout.strip())
    assert path.is_relative_to(tmp_path / "hub") and path.read_bytes() == CONTENT
    server.requests.clear()
    assert run(HF_HUB_OFFLINE="1").stdout.strip() == str(path)
    assert not server.requests


def test_a_branch_follows_the_hub_and_needs_none_once_it_is_in_the_cache(hub, monkeypatch):
    assert from_hub(REPO, "main", FILE).read_bytes() == CONTENT
    hub.failures = [503] * 9
    assert from_hub(REPO, "main", FILE).read_bytes() == CONTENT
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert from_hub(REPO, "main", FILE).read_bytes() == CONTENT


def test_no_network(hub, monkeypatch, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    for text in (refused(from_hub, REPO, COMMIT, FILE), refused(from_http, f"{address}/f", SHA256, tmp_path)):
        assert "onnection refused" in text and "the same command resumes" in text and "dvc pull" in text


def test_a_name_that_does_not_resolve(monkeypatch, tmp_path):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    text = refused(from_http, "http://no-such-host.invalid/f", SHA256, tmp_path)
    assert "http://no-such-host.invalid/f" in text and "Name or service not known" in text


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418])
def test_a_web_server_that_refuses(server, tmp_path, status):
    server.failures = [status]
    text = refused(from_http, f"{server.address}/file.json", SHA256, tmp_path)
    assert f"{server.address}/file.json': the server answered {status}" in text and "conf/data/" in text
    assert len(server.requests) == 1


def test_a_web_server_that_stays_busy(server, tmp_path):
    server.failures = [503] * 9
    text = refused(from_http, f"{server.address}/file.json", SHA256, tmp_path)
    assert "the server answered 503" in text and "the same command resumes" in text
    assert len(server.requests) == download.ATTEMPTS


def test_offline_nothing_is_downloaded_from_the_web_either(server, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "unset HF_HUB_OFFLINE" in refused(from_http, f"{server.address}/file.json", SHA256, tmp_path)
    assert not server.requests


@pytest.mark.parametrize("address", ["", "file.json", "ftp://127.0.0.1/f", "http:///f", "http://127.0.0.1:x/"])
def test_an_address_that_is_none(tmp_path, address):
    assert "no address" in refused(from_http, address, SHA256, tmp_path)


def test_something_that_is_no_hub(hub):
    hub.failures = [200]  # without a commit, as a login page of a hotel's network answers
    assert "check HF_ENDPOINT" in refused(from_hub, REPO, COMMIT, FILE)


def test_a_full_disk_is_noticed_before_the_download(fetched, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2_000_000))
    assert "make room" in refused(fetched)
    assert not [*tmp_path.rglob("*.partial"), *tmp_path.rglob("*.incomplete")]


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").touch()
    assert "could not be kept" in refused(from_http, f"{server.address}/file.json", SHA256, tmp_path / "file")


def test_two_at_once_download_one_file(server, tmp_path):
    threads = [
        threading.Thread(target=from_http, args=(f"{server.address}/file.json", SHA256, tmp_path)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / SHA256).read_bytes() == CONTENT
    assert sent(server) == len(CONTENT)


def test_the_cache_is_one_that_huggingface_hub_understands(hub, tmp_path):
    hub.drops = -1
    refused(from_hub, REPO, COMMIT, FILE)
    assert len(huggingface_hub.scan_cache_dir(tmp_path / "hub").incomplete_files) == 1
    hub.drops = 0
    found = from_hub(REPO, COMMIT, FILE)
    info = huggingface_hub.scan_cache_dir(tmp_path / "hub")
    assert not info.warnings and not info.incomplete_files
    assert [file.file_path for repo in info.repos for rev in repo.revisions for file in rev.files] == [found]
