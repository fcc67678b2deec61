"""A base from the Hugging Face Hub, at a pinned revision."""

from pathlib import Path
from typing import Any

import httpx2  # huggingface_hub's client
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import DryRunError, HFValidationError

from stages.lib.base import checkpoint
from stages.lib.base.requirements import require_llama
from stages.lib.core.errors import UserError
from stages.lib.core.resources import require_disk
from stages.lib.data.sources.hub_errors import explain_hub, model_repo
from stages.lib.settings.model import Hub

FILES = ["*.json", "*.jinja", "*.safetensors", "LICENSE*", "USE_POLICY*"]
OTHERS = ["*/*"]  # folders of a repo hold the same weights in other formats


def take_over(hub: Hub, target: Path) -> None:
    """Download a base, look at it, and link its weights; raises UserError where no later stage could use it."""
    source = download(hub)
    require_llama(source)
    checkpoint.link(source, target)


def download(hub: Hub) -> Path:
    """The pinned revision's folder in the hub's own cache; what is there already is not downloaded again.

    A download that breaks off keeps every file that is whole. HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE mean
    what they mean to huggingface_hub. Raises UserError where the licence was not accepted, the token is missing, the
    disk is too small, or the hub cannot be reached and the cache lacks a file.
    """
    wanted: dict[str, Any] = {"revision": hub.revision, "allow_patterns": FILES, "ignore_patterns": OTHERS}
    try:
        _require_room(hub, wanted)
        return Path(snapshot_download(hub.repo, **wanted))
    except (httpx2.HTTPError, HFValidationError, OSError) as error:
        why = explain_hub(error, model_repo(hub.repo))
        raise UserError(f"{hub.repo} at revision {hub.revision}: {why}") from error


def _require_room(hub: Hub, wanted: dict[str, Any]) -> None:
    """Raise UserError where the disk of the hub's cache has no room for the files that it lacks."""
    try:
        planned: Any = snapshot_download(hub.repo, dry_run=True, **wanted)
    except DryRunError:  # the hub cannot be reached: nothing will be downloaded
        return
    missing = sum(file.file_size or 0 for file in planned if file.will_download)
    require_disk(Path(constants.HF_HUB_CACHE), missing, f"what is missing of {hub.repo}")
