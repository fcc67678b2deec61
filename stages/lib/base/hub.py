"""A base from the Hugging Face Hub, at a pinned revision."""

import shutil
from pathlib import Path

import httpx2  # huggingface_hub's client
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from stages.lib.core.errors import UserError
from stages.lib.core.resources import require_disk
from stages.lib.data.sources.hub_errors import explain_hub, model_repo
from stages.lib.settings.model import Hub

HUB_FILES = ["*.json", "*.safetensors", "LICENSE*", "USE_POLICY*"]
MARGIN = 1.1  # of free disk, beyond the files' own size


def download(hub: Hub, folder: Path) -> None:
    """Fetch the pinned revision's weights, config and tokenizer; checks the free disk first.

    Raises UserError where the disk is too small, the licence was not accepted, the token is missing or
    the hub cannot be reached.
    """
    require_disk(folder, MARGIN * hub.gigabytes * 1e9, hub.repo)
    folder.mkdir(parents=True)
    try:
        snapshot_download(hub.repo, revision=hub.revision, local_dir=folder, allow_patterns=HUB_FILES)
    except (httpx2.HTTPError, HFValidationError, OSError) as error:
        why = explain_hub(error, model_repo(hub.repo))
        raise UserError(f"{hub.repo} at revision {hub.revision}: {why}") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
