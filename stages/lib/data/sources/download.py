"""Downloads that resume, are checked on the way and never leave half a file under its final name.

huggingface_hub 2.4 keeps no partial file: a reset connection, a kill or a second run starts its download from zero,
and within a run it loses what is not a full 10 MiB. So the bytes of a hub file come the same way as any other file's,
straight into the hub's cache under the name `hf_hub_download` looks for, and that links them.
"""

import hashlib
import io
import logging
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx2  # huggingface_hub's client
import huggingface_hub as hub
from filelock import FileLock
from huggingface_hub import constants, errors
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers
from tqdm import tqdm

from stages.lib import files
from stages.lib.errors import UserError

COMMIT = re.compile("[0-9a-f]{40}")
ATTEMPTS = 4
BACK_OFF = 1.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 30.0  # seconds without a byte
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that another attempt may not meet
BY_HAND = "or save the file by hand and name it: `dvc exp run -S data=local -S data.NAME=PATH`"
PULL = "where data/raw is in a DVC remote already, `dvc pull` needs no such server"
RESUMES = f"the same command resumes; {PULL}"
REFUSALS = {  # the first that fits: to huggingface_hub a gated repo is one that was not found
    errors.OfflineModeIsEnabled: f"not in the hub's cache, and HF_HUB_OFFLINE is set: `unset HF_HUB_OFFLINE`; {PULL}",
    errors.GatedRepoError: "gated: accept the licence on {page}, then `export HF_TOKEN=...`, a token of that account",
    errors.RepositoryNotFoundError: "no such repo, or private: correct `repo` in conf/data/, or `export HF_TOKEN=...`",
    errors.RevisionNotFoundError: "no such revision: correct `revision` in conf/data/; see {page}/commits/main",
    errors.RemoteEntryNotFoundError: "no such file there: correct `path` in conf/data/; see {page}/tree/main",
    errors.HFValidationError: "no name of a repo: correct `repo` in conf/data/, expected owner/name",
}


def from_hub(repo: str, revision: str, path: str) -> Path:
    """A dataset file of the Hugging Face Hub in the hub's own cache, downloaded where it is not there yet.

    HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE mean what they mean to huggingface_hub. Raises
    UserError with repo, revision and path where it cannot be had.
    """
    file = {"repo_id": repo, "filename": path, "repo_type": "dataset", "revision": revision}
    try:
        cached = hub.try_to_load_from_cache(**file)
        if isinstance(cached, str) and (constants.is_offline_mode() or COMMIT.fullmatch(revision)):
            return Path(cached)
        url = hub.hf_hub_url(**file)
        found = _retried(lambda: hub.get_hf_file_metadata(url), url)
        if not found.commit_hash or not re.fullmatch(r"[\w-]+", found.etag or ""):
            raise UserError(f"{url} does not answer as a hub does, with a commit and an ETag; check HF_ENDPOINT")
        blob = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="dataset"), "blobs", found.etag)
        if not blob.exists():
            sha256 = found.etag if len(found.etag) == 64 else ""  # of a file in Git it is another hash
            _fetch(url, sha256, found.size, blob, blob.with_name(f"{found.etag}.incomplete"), build_hf_headers())
        if len(found.etag) == 40 and _git_hash(blob) != found.etag:
            blob.unlink()
            raise UserError(f"{url} gave a file of Git hash other than {found.etag}: nothing was kept; run again")
        return Path(hub.hf_hub_download(**file))
    except (httpx2.HTTPError, errors.HFValidationError, OSError) as error:
        if _passes(error) and isinstance(cached, str):
            return Path(cached)  # as `hf_hub_download` does; only a branch or tag comes here
        raise UserError(f"{repo} at revision {revision}, {path}: {_hub_reason(error, repo)}") from error


def from_http(url: str, sha256: str, folder: Path) -> Path:
    """A file of a web server as `folder/<sha256>`; what a broken download left in `<sha256>.partial` is taken up.

    Raises UserError with the URL where it cannot be had, or with both hashes where it is another file.
    """
    try:
        _fetch(url, sha256, None, folder / sha256, folder / f"{sha256}.partial", {})
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise UserError(f"{url!r} is no address, expected http(s)://...: correct `path` in conf/data/") from error
    except httpx2.HTTPError as error:
        if _passes(error):
            raise UserError(f"{url} could not be downloaded: {_reason(error)}; {RESUMES}") from error
        raise UserError(f"{url}: {_reason(error)}; correct `path` in conf/data/, {BY_HAND}") from error
    return folder / sha256


def _git_hash(path: Path) -> str:
    """The SHA-1 under which Git keeps a file."""
    return hashlib.sha1(b"blob %d\0" % path.stat().st_size + path.read_bytes()).hexdigest()


def discard(path: Path) -> None:
    """Remove a file from the hub's cache: the link in the snapshot and the blob it points to."""
    blob = path.parent / path.readlink() if path.is_symlink() else path
    path.unlink()
    blob.unlink(missing_ok=True)


def _fetch(url: str, sha256: str, size: int | None, target: Path, partial: Path, headers: dict[str, str]) -> None:
    """Complete `partial`, and rename it to `target` where hash (if not empty) and size (if known) are right."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(partial.with_name(f"{partial.name}.lock")):  # queued experiments may want the same file at once
            if target.is_file() and sha256 in ("", files.sha256(target)):
                return
            validator = {}
            # what an earlier run left may be of another version of the file: then once more from zero
            for _ in range(2 if partial.exists() else 1):
                found = _retried(lambda: _receive(url, size, partial, headers, validator), url)
                if sha256 in ("", found):
                    partial.replace(target)
                    return
                partial.unlink()
            mend = f"nothing was kept: run again; if it stays so, correct the source in conf/data/, {BY_HAND}"
            raise UserError(f"{url} gave a file of sha256 {found}, expected {sha256}; {mend}")
    except OSError as error:
        raise UserError(f"{url} could not be kept: {error}; mend that, and the same command resumes") from error


def _receive(url: str, size: int | None, partial: Path, headers: dict[str, str], validator: dict[str, str]) -> str:
    """One attempt to append what `partial` lacks; returns the SHA-256 of the whole, `validator` keeps the ETag."""
    have = partial.stat().st_size if partial.exists() else 0
    with partial.open("rb") if have else io.BytesIO() as file:
        digest = hashlib.file_digest(file, "sha256")
    headers = headers | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} | validator if have else {})
    with httpx2.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
        got = response.headers.get("Content-Range", "")
        if response.status_code == 416 and got == f"bytes */{have}" and size in (None, have):
            return digest.hexdigest()  # killed between the last byte and the rename
        if response.status_code == 416 or (response.status_code == 206 and not got.startswith(f"bytes {have}-")):
            partial.unlink()
            raise httpx2.RemoteProtocolError(f"asked for the bytes from {have}, got {got or 'others'}")
        response.raise_for_status()
        etag = response.headers.get("ETag", "")
        validator.update({"If-Range": etag} if etag.startswith('"') else {})  # a weak ETag (W/) promises no equal bytes
        if response.status_code != 206:
            have, digest = 0, hashlib.sha256()
        rest, free = int(response.headers.get("Content-Length", 0)), shutil.disk_usage(partial.parent).free
        if rest > free:
            raise UserError(f"{partial.parent}: {free / 1e9:.1f} GB free, {rest / 1e9:.1f} needed for {url}; make room")
        bar = tqdm(total=have + rest or None, initial=have, desc=Path(url).name, unit="B", unit_scale=True)
        with partial.open("ab" if have else "wb") as file, bar:
            for block in response.iter_raw():
                digest.update(block)
                file.write(block)
                bar.update(len(block))
    if size not in (None, partial.stat().st_size):
        raise httpx2.RemoteProtocolError(f"expected {size} bytes, got {partial.stat().st_size}")
    return digest.hexdigest()


def _retried(attempt: Callable, url: str):
    """What `attempt` returns, called again after a failure that may pass."""
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except httpx2.HTTPError as error:
            if number == ATTEMPTS or not _passes(error):
                raise
            logging.warning("%s: %s; attempt %d of %d follows", url, _reason(error), number + 1, ATTEMPTS)
            time.sleep(BACK_OFF * 2 ** (number - 1))


def _hub_reason(error: Exception, repo: str) -> str:
    """What the hub's refusal means, and what mends it."""
    page = f"{constants.ENDPOINT}/datasets/{repo}"
    if refusals := [text for kind, text in REFUSALS.items() if isinstance(error, kind)]:
        return refusals[0].format(page=page)
    if (response := getattr(error, "response", None)) is not None and response.status_code in (401, 403):
        return f"{_reason(error)}: accept the licence on {page}, then `export HF_TOKEN=...` with a valid token"
    return f"could not be downloaded: {_reason(error)}; {RESUMES}"


def _passes(error: Exception) -> bool:
    if (response := getattr(error, "response", None)) is not None:
        return response.status_code in PASSING
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol)


def _reason(error: Exception) -> str:
    if (response := getattr(error, "response", None)) is not None:
        return f"the server answered {response.status_code} {response.reason_phrase}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
