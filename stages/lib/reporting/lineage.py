"""Where the GGUFs come from, as the page and the model's card list it."""

from stages.lib.core.paths import F16, gguf
from stages.lib.export.gguf_keys import DVC, PREFIX
from stages.lib.reporting.formatting import size


def lineage_groups(verifications: dict[str, dict]) -> dict[str, dict[str, str]]:
    """In groups: what the GGUFs are made of, what DVC tracks, the files, and which llama.cpp measured them."""
    keys = verifications[F16]["lineage"]
    own = {key.removeprefix(PREFIX): text for key, text in keys.items() if not key.startswith(DVC)}
    return {
        "made of": {key: text for key, text in own.items() if key != "notice"},
        "in dvc.lock (MD5)": {key.removeprefix(DVC): text for key, text in keys.items() if key.startswith(DVC)},
        "GGUF files (SHA-256)": {
            gguf(name).name: f"{one['sha256']} · {size(one['bytes'])}" for name, one in verifications.items()
        },
        "measured with": {gguf(name).name: one["measured_with"] for name, one in verifications.items()},
    }
