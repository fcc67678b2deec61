"""What the errors of a download mean, as sentences that say what to do; for datasets, models and plain web files."""

from dataclasses import dataclass

import httpx2  # huggingface_hub's client
from huggingface_hub import constants, errors

PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that a later attempt may not meet
BY_HAND = "or save the file by hand and name it: `dvc exp run -S data=local -S data.NAME=PATH`"
ONLINE = "HF_HUB_OFFLINE is set: `unset HF_HUB_OFFLINE`"


@dataclass(frozen=True)
class HubRepo:
    """A repo of the Hugging Face Hub, as messages speak of it."""

    page: str  # URL
    conf: str  # where the repo and its revision are set
    retry: str  # what to do where the network failed


def dataset_repo(name: str) -> HubRepo:
    """The dataset repo owner/name."""
    return HubRepo(f"{constants.ENDPOINT}/datasets/{name}", "conf/data/", _resumes("data/raw"))


def model_repo(name: str) -> HubRepo:
    """The model repo owner/name."""
    return HubRepo(
        f"{constants.ENDPOINT}/{name}", "conf/model/", f"check the network, run again; {_pull('models/base')}"
    )


def _pull(out: str) -> str:
    return f"where {out} is in a DVC remote already, `dvc pull` needs no such server"


def _resumes(out: str) -> str:
    return f"the same command resumes; {_pull(out)}"


# The first that fits: to huggingface_hub a gated repo is one that was not found.
REFUSALS: dict[type[Exception], str] = {
    errors.OfflineModeIsEnabled: f"not in the hub's cache, and {ONLINE}; {{retry}}",
    errors.GatedRepoError: "gated: accept the licence on {page}, then `export HF_TOKEN=...`, a token of that account",
    errors.RepositoryNotFoundError: "no such repo, or private: correct `repo` in {conf}, or `export HF_TOKEN=...`",
    errors.RevisionNotFoundError: "no such revision: correct `revision` in {conf}; see {page}/commits/main",
    errors.RemoteEntryNotFoundError: "no such file there: correct `path` in {conf}; see {page}/tree/main",
    errors.HFValidationError: "no name of a repo: correct `repo` in {conf}, expected owner/name",
}


def explain_hub(error: Exception, repo: HubRepo) -> str:
    """What an error of a download from the hub means, and what fixes it."""
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the hub's client looked into its cache in vain because of this
    for kind, refusal in REFUSALS.items():
        if isinstance(error, kind):
            return refusal.format(page=repo.page, conf=repo.conf, retry=repo.retry)
    if _status(error) in (401, 403):
        return f"{reason(error)}: accept the licence on {repo.page}, then `export HF_TOKEN=...` with a valid token"
    if _of_this_machine(error):
        return f"could not be kept: {error}; fix that, and run the same command"
    return f"could not be downloaded: {reason(error)}; {repo.retry}"


def explain_web(error: Exception) -> str:
    """What an error of a download from a web server means, and what fixes it."""
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
        return "no address, expected http(s)://...: correct `path` in conf/data/"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"not downloaded, since {ONLINE}"
    if _of_this_machine(error):
        return f"could not be kept: {error}; fix that, and the same command resumes"
    if is_passing(error):
        return f"could not be downloaded: {reason(error)}; {_resumes('data/raw')}"
    return f"{reason(error)}; correct `path` in conf/data/, {BY_HAND}"


def is_passing(error: Exception) -> bool:
    """Whether a later attempt may succeed: the network failed, or the server was busy or broken."""
    if (status := _status(error)) is not None:
        return status in PASSING
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol)


def reason(error: Exception) -> str:
    """An error in one line: the server's status, or how its own text begins."""
    if isinstance(error, httpx2.HTTPStatusError | errors.HfHubHTTPError):
        return f"the server answered {error.response.status_code} {error.response.reason_phrase}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _status(error: Exception) -> int | None:
    """The status that a server answered with, if it answered."""
    return error.response.status_code if isinstance(error, httpx2.HTTPStatusError | errors.HfHubHTTPError) else None


def _of_this_machine(error: Exception) -> bool:
    """A full disk or a folder that may not be written; huggingface_hub's own OSErrors have no number."""
    return isinstance(error, OSError) and error.errno is not None
