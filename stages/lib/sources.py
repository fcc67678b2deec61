"""Bring the raw files of each kind of source into data/raw."""

import os
import shutil
from pathlib import Path

from stages.lib import sample
from stages.lib.errors import UserError
from stages.lib.files import replacing, sha256, write_json, write_jsonl
from stages.lib.schema import Source

FILES = {"chatdoctor": "chatdoctor.json", "medqa_train": "medqa_train.jsonl", "medqa_test": "medqa_test.jsonl"}


def located(source: Source) -> Path:
    """Where a source of kind `file` lies; relative paths start at the main checkout.

    Raises UserError where there is none or where its bytes are not those of the composed configuration.
    """
    compose = f"dvc exp run -S data=local -S data.{source.name}=PATH"
    if not source.path:
        raise UserError(f"data.{source.name} is not set; name the file with `{compose}`")
    path = Path(os.environ.get("DVC_ROOT", ".")) / Path(source.path).expanduser()
    if not path.is_file():
        raise UserError(f"data.{source.name}: {source.path} is no file; name it with `{compose}`")
    found = sha256(path)
    if found != source.sha256:
        raise UserError(
            f"data.{source.name}: {source.path} has sha256 {found}, expected {source.sha256 or 'none'}; "
            f"nothing was kept. If the change is meant, take it up with `{compose}`"
        )
    return path


def refuse_hub(source: Source) -> None:
    """Downloading from the hub is not there yet."""
    raise UserError(
        f"data.{source.name}: downloading {source.repo} at {source.revision} ({source.path}) is not there yet; "
        "fetch that file by other means and use `dvc exp run -S data=local ...`"
    )


def copy(path: Path, target: Path) -> None:
    """Copy a file so that the target appears whole."""
    with replacing(target) as temporary:
        shutil.copyfile(path, temporary)


def generate(counts: dict[str, int], tables: Path, seed: int, raw: Path) -> None:
    """Write the generated sources; the questions come from one draw, so that train and test share none."""
    if count := counts.get("chatdoctor"):
        write_json(raw / FILES["chatdoctor"], sample.dialogues(tables, count, seed))
    train, test = counts.get("medqa_train", 0), counts.get("medqa_test", 0)
    if train + test:
        questions = sample.questions(tables, train + test, seed)
        write_jsonl(raw / FILES["medqa_train"], questions[:train])
        write_jsonl(raw / FILES["medqa_test"], questions[train:])
