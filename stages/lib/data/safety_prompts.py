"""The prompts of the safety set, `data/safety/prompts.jsonl`."""

from pathlib import Path

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_jsonl

COLUMNS = ("id", "category", "prompt")


def read_prompts(path: Path) -> list[dict]:
    """Rows of id, category, prompt and perhaps planted words; raises UserError with file and line of a bad one."""
    prompts: dict[str, dict] = {}
    for number, row in read_jsonl(path):
        for column in COLUMNS:
            need_text(row, column, f"{path}:{number}")
        if row["id"] in prompts:
            raise UserError(f"{path}:{number}: id: {row['id']!r} stands in an earlier line; give each prompt its own")
        prompts[row["id"]] = row
    return list(prompts.values())


def need_text(row: dict, column: str, where: str) -> None:
    """Raise UserError unless a row has a text in that column."""
    if not isinstance(row.get(column), str) or not row[column].strip():
        raise UserError(f"{where}: {column}: expected a text, got {row.get(column)!r}")
