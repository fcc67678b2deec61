"""Hydra loads this module whenever it composes conf/; it registers the resolvers that conf/ uses."""

import hashlib
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[3]
REPORT_SLOTS = 12


def conf_digest(conf: Path = ROOT / "conf") -> str:
    """SHA-256 over names and bytes of every file of conf/ that decides a composed value."""
    digest = hashlib.sha256()
    for path in sorted(conf.rglob("*")):
        if path.suffix in {".yaml", ".py"} and not path.name.startswith("."):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(conf).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def file_sha256(path: str) -> str:
    """SHA-256 of a file, taken at composition; empty where there is none, which `fetch` reports."""
    file = ROOT / Path(path).expanduser()
    if not file.is_file():
        return ""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_format(path: str, otherwise: str) -> str:
    """The format that a file's name ends with; `otherwise` where there is no name yet."""
    return Path(path).suffix.lstrip(".").lower() or otherwise


def evaluated_models(types: list[str]) -> dict[str, str]:
    """Name of every model that is evaluated -> its path below models/."""
    fixed = {"base": "base", "adapter": "adapter", "tuned": "merged"}
    return fixed | {kind: f"gguf/llama3-chat-doctor-{kind}.gguf" for kind in ["f16", *types]}


def verified(types: list[str]) -> list[str]:
    """Every GGUF that is verified."""
    return ["f16", *types]


def report_slots(types: list[str]) -> list[str]:
    """Evaluated names, the last one repeated up to REPORT_SLOTS.

    A DVC stage cannot have a list of deps of variable length, and a folder as its dep would make the report
    see metrics of quant types that are no longer in the list. So dvc.yaml names a fixed number of files.
    """
    names = list(evaluated_models(types))
    return names + names[-1:] * (REPORT_SLOTS - len(names))


for resolver in (conf_digest, file_sha256, file_format):
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
for resolver in (evaluated_models, report_slots, verified):
    # OmegaConf takes a container from a resolver only as one of its own.
    OmegaConf.register_new_resolver(
        resolver.__name__, lambda types, made=resolver: OmegaConf.create(made(types)), replace=True
    )
