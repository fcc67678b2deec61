"""What params.yaml was composed from: the digest of conf/, and the choices that a run goes by."""

import hashlib
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from stages.lib.core.errors import UserError

ALONE = re.compile(r"-[a-zA-Z]*s[a-zA-Z]*|--single.*")  # how `dvc repro` is told to run one stage without the others


def conf_digest(conf: Path) -> str:
    """SHA-256 over names and bytes of every file of conf/ that decides a composed value."""
    digest = hashlib.sha256()
    for path in sorted(conf.rglob("*")):
        if path.suffix in {".yaml", ".py"} and not path.name.startswith("."):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(conf).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def require_composed(composed: str, conf: Path, params: Path) -> None:
    """Raise UserError where conf/ is not what params.yaml was composed from, whose `conf_digest` is `composed`."""
    digest = conf_digest(conf)
    if digest != composed:
        raise UserError(
            f"{conf}/ has changed since {params} was composed from it (conf_digest is {composed[:12]}, "
            f"expected {digest[:12]}); compose it anew and run with `dvc exp run`, adding the -S choices you want"
        )


def choices(settings: Mapping) -> dict[str, str]:
    """Data, model and training of a run, with the files of one's own; `settings` is params.yaml."""
    data, model, train = (settings.get(section) or {} for section in ("data", "model", "train"))
    files = [source.get("path") for source in data.get("sources") or [] if source.get("kind") == "file"]
    weights = (model.get("folder") or model.get("gguf") or {}).get("path")
    quantization = train.get("quantization")
    return {
        "data": f"{data.get('name')}" + (f" ({', '.join(map(str, files))})" if files else ""),
        "model": f"{model.get('name')}" + (f" ({weights})" if weights else ""),
        "training": f"{train.get('method')}" + (f" on a {quantization} base" if quantization != "none" else ""),
    }


def in_words(chosen: dict[str, str], before: dict[str, str]) -> str:
    """The choices of a run in one line, with those of the run before it where they differ."""
    return "; ".join(
        f"{what}: {one}" + (f" (before: {before[what]})" if before[what] != one else "") for what, one in chosen.items()
    )


def quoted(key: str, value: str) -> str:
    """A choice as it is typed behind -S: where it is no plain value in Hydra's quotes, and those in the shell's."""
    if not re.fullmatch(r"[\w./-]*", value, re.ASCII):
        value = '"' + value.replace('"', r"\"") + '"'
    return shlex.quote(f"{key}={value}")


def runs_alone() -> bool:
    """Whether this stage was started by `dvc repro -s`, which looks at no stage before it, `config` included."""
    for process in psutil.Process().parents():
        with suppress(psutil.Error):
            _, *arguments = process.cmdline() or [""]
            if "repro" in arguments and any(map(ALONE.fullmatch, arguments)):
                return True
    return False
