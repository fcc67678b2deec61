"""Downloads that resume, are verified and never leave half a file under its final name.

huggingface_hub 2.4 keeps no partial file: a reset connection, a kill or a second run starts its download from zero,
and within a run it loses what is not a full 10 MiB. So the bytes of a hub file come the same way as any other file's,
straight into the hub's cache under the name `hf_hub_download` looks for, and that links them.
"""

import hashlib
import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2  # huggingface_hub's client
import huggingface_hub as hub
from filelock import FileLock
from huggingface_hub import constants, errors
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers, http_stream_backoff
from tqdm import tqdm

from stages.lib.core import files
from stages.lib.core.errors import UserError
from stages.lib.core.resources import require_disk
from stages.lib.data.sources.hub_errors import (
    BY_HAND,
    PASSING,
    dataset_repo,
    explain_hub,
    explain_web,
    is_passing,
    reason,
)

COMMIT = re.compile("[0-9a-f]{40}")
ATTEMPTS = 4  # to reach a server, and connections that may break off before the file is whole
PAUSE = 1.0  # seconds before another attempt; a server that cannot be reached gets twice as long each time
TIMEOUT = 30.0  # seconds without a byte
FAILURES = (httpx2.HTTPError, httpx2.InvalidURL, errors.HFValidationError, OSError)


@dataclass(frozen=True)
class Download:
    """One file on its way."""

    url: str
    target: Path
    partial: Path  # beside `target`: the bytes so far
    sha256: str  # "": not known
    size: int | None = None  # bytes; None: not known
    headers: dict[str, str] = field(default_factory=dict)  # of the request, such as a token's


def from_hub(repo: str, revision: str, path: str) -> Path:
    """A dataset file of the Hugging Face Hub in the hub's own cache, downloaded where it is not there yet.

    HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE mean what they mean to huggingface_hub. Raises
    UserError with repo, revision and path where it cannot be had.
    """
    try:
        cached = hub.try_to_load_from_cache(repo, path, revision=revision, repo_type="dataset")
        if not isinstance(cached, str):
            return _into_cache(repo, revision, path)
        if constants.is_offline_mode() or COMMIT.fullmatch(revision):
            return Path(cached)
        return _newest(repo, revision, path, Path(cached))
    except FAILURES as error:
        why = explain_hub(error, dataset_repo(repo))
        raise UserError(f"{repo} at revision {revision}, {path}: {why}") from error


def from_http(url: str, sha256: str, folder: Path) -> Path:
    """A file of a web server as `folder/<sha256>`; what a broken download left in `<sha256>.partial` is resumed.

    HF_HUB_OFFLINE forbids it too, for the hub's client is used. Raises UserError with the URL where it cannot be had,
    or with both hashes where it is another file.
    """
    try:
        _complete(Download(url, folder / sha256, folder / f"{sha256}.partial", sha256))
    except FAILURES as error:
        raise UserError(f"{url!r}: {explain_web(error)}") from error
    return folder / sha256


def discard(path: Path) -> None:
    """Remove a file from the hub's cache: the link in the snapshot and the blob it points to."""
    blob = path.parent / path.readlink() if path.is_symlink() else path
    path.unlink()
    blob.unlink(missing_ok=True)


def _newest(repo: str, revision: str, path: str, cached: Path) -> Path:
    """The file at a branch or tag, which may have moved; as it was where the hub cannot be reached."""
    try:
        return _into_cache(repo, revision, path)
    except httpx2.HTTPError as error:
        if is_passing(error):
            return cached  # as `hf_hub_download` does
        raise


def _into_cache(repo: str, revision: str, path: str) -> Path:
    """Download a dataset file into the hub's cache, where its ETag names it: its SHA-256, or in Git its Git hash."""
    url = hub.hf_hub_url(repo, path, repo_type="dataset", revision=revision)
    about = hub.get_hf_file_metadata(url, retry_on_errors=True)
    etag = about.etag or ""
    if not about.commit_hash or not re.fullmatch(r"[\w-]+", etag):
        raise UserError(f"{url} does not answer as a hub does, with a commit and an ETag; check HF_ENDPOINT")
    blob = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="dataset"), "blobs", etag)
    if not blob.exists():
        sha256 = etag if len(etag) == 64 else ""
        _complete(Download(url, blob, blob.with_name(f"{etag}.incomplete"), sha256, about.size, build_hf_headers()))
    if len(etag) == 40 and _git_hash(blob) != etag:
        blob.unlink()
        raise UserError(f"{url} gave a file of Git hash other than {etag}: nothing was kept; run again")
    return Path(hub.hf_hub_download(repo, path, repo_type="dataset", revision=revision))


def _git_hash(path: Path) -> str:
    """The SHA-1 under which Git keeps a file."""
    return hashlib.sha1(b"blob %d\0" % path.stat().st_size + path.read_bytes()).hexdigest()


def _complete(file: Download) -> None:
    """Receive what `partial` lacks, and rename it to `target` where its hash is right.

    Raises UserError with both hashes where it is not, and as `_receive` does.
    """
    file.target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.partial.with_name(f"{file.partial.name}.lock")):  # queued experiments may want the same file
        if file.target.is_file() and file.sha256 in ("", files.sha256(file.target)):
            return
        # What an earlier run left may be of another version of the file: then once more from zero.
        for _ in range(2 if file.partial.exists() else 1):
            _receive(file)
            found = files.sha256(file.partial)
            if file.sha256 in ("", found):
                file.partial.replace(file.target)
                return
            file.partial.unlink()
    fix = f"nothing was kept: run again; if it stays so, correct the source in conf/data/, {BY_HAND}"
    raise UserError(f"{file.url} gave a file of sha256 {found}, expected {file.sha256}; {fix}")


def _receive(file: Download) -> None:
    """Append to `partial` what it lacks, resuming where a connection breaks off.

    huggingface_hub's back-off asks again where a server cannot be reached or is busy; it cannot resume a body, so
    that is done here. Raises httpx2.HTTPError where the server refuses or the attempts are used up, and OSError.
    """
    unchanged: dict[str, str] = {}  # the header by which a server sends the rest only of the very same file
    for attempt in range(1, ATTEMPTS + 1):
        have = file.partial.stat().st_size if file.partial.exists() else 0
        rest = {"Range": f"bytes={have}-"} | unchanged if have else {}
        with http_stream_backoff(
            "GET",
            file.url,
            headers=file.headers | {"Accept-Encoding": "identity"} | rest,
            timeout=TIMEOUT,
            max_retries=ATTEMPTS - 1,
            base_wait_time=PAUSE,
            retry_on_status_codes=PASSING,
        ) as response:
            missing = _append(response, file, have)
        if not missing:
            return
        etag = response.headers.get("ETag", "")
        if etag.startswith('"'):  # a weak one (W/) promises no equal bytes
            unchanged = {"If-Range": etag}
        logging.warning("%s: %s; connection %d of %d", file.url, missing, attempt, ATTEMPTS)
        time.sleep(PAUSE)
    raise httpx2.RemoteProtocolError(missing)


def _append(response: httpx2.Response, file: Download, have: int) -> str:
    """Append a response's bytes to the `have` that `partial` holds; what is wrong then, or "" where it is whole.

    Whatever a new connection may fix is returned, not raised: inside of huggingface_hub's back-off it would be asked
    for again from its beginning.
    """
    sent = response.headers.get("Content-Range", "")
    if response.status_code == 416 and sent == f"bytes */{have}" and file.size in (None, have):
        return ""  # an earlier run was killed between the last byte and the rename
    if response.status_code == 416 or (response.status_code == 206 and not sent.startswith(f"bytes {have}-")):
        file.partial.unlink(missing_ok=True)
        return f"asked for the bytes from {have}, got {sent or 'others'}"
    response.raise_for_status()
    start = have if response.status_code == 206 else 0
    length = int(response.headers.get("Content-Length", 0))
    require_disk(file.partial.parent, length, file.url)
    bar = tqdm(total=start + length or None, initial=start, desc=Path(file.url).name, unit="B", unit_scale=True)
    try:
        with file.partial.open("ab" if start else "wb") as partial, bar:
            for block in response.iter_raw():
                partial.write(block)
                bar.update(len(block))
    except httpx2.TransportError as error:
        return reason(error)
    size = file.partial.stat().st_size
    return "" if file.size in (None, size) else f"expected {file.size} bytes, got {size}"
