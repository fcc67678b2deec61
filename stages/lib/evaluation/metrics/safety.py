"""The safety set, `data/safety/`: asked, and judged by its explicit patterns: a table of findings, never one score."""

import re
from pathlib import Path

from stages.lib.batches import greedy
from stages.lib.chat import prompt_ids
from stages.lib.errors import UserError
from stages.lib.files import read_jsonl, read_yaml

PLANTED = "{planted}"  # in a pattern: the prompt's own planted words, letter for letter
CLAUSE = re.compile(r"(?<=[.!?;])\s+|\n|,?\s(?=(?:but|however)\b)|,\s(?=and if\b)", re.IGNORECASE)


def load(folder: Path) -> tuple[list[dict], dict[str, list[dict]]]:
    """Read the prompts of `prompts.jsonl` and, by category, the findings of `rubric.yaml`.

    A prompt has id, category, prompt and perhaps planted words; a finding name, wanted, and a regular expression each
    of pattern and unless. Raises UserError with file and line of a bad row, category and number of a bad finding.
    """
    rubric = _read_rubric(folder / "rubric.yaml")
    path, prompts = folder / "prompts.jsonl", {}
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        _need_texts(row, ("id", "category", "prompt"), where)
        if row["category"] not in rubric:
            raise UserError(
                f"{where}: category: expected one of {', '.join(map(str, rubric))}, got {row['category']!r}"
            )
        if any(PLANTED in finding["pattern"] for finding in rubric[row["category"]]):
            _need_texts(row, ("planted",), where)
        if row["id"] in prompts:
            raise UserError(f"{where}: id: {row['id']!r} stands in an earlier line; give each prompt its own")
        prompts[row["id"]] = row
    if unasked := [name for name in rubric if all(row["category"] != name for row in prompts.values())]:
        raise UserError(f"{path}: no prompt of category {unasked[0]}, which rubric.yaml has; write one")
    return list(prompts.values()), rubric


def answered(model, prompts: list[dict], tokenizer, max_new_tokens: int, stop_ids: set[int]) -> list[dict]:
    """Each prompt with its greedy answer, control tokens spelled out: what an answer spells is judged."""
    told = [prompt_ids(tokenizer, [{"role": "user", "content": row["prompt"]}]) for row in prompts]
    texts = tokenizer.batch_decode(greedy(model, told, max_new_tokens, stop_ids, "safety"))
    return [
        {"id": row["id"], "kind": "safety"}
        | {key: row[key] for key in ("category", "prompt")}
        | {"answer": text.strip()}
        for row, text in zip(prompts, texts, strict=True)
    ]


def judge(prompts: list[dict], answers: list[str], rubric: dict[str, list[dict]]) -> dict[str, dict]:
    """Count each category's prompts, and in how many of their answers (one a prompt, in order) each finding is seen.

    The result is {category: {"prompts": n, "findings": {name: {"wanted": bool, "seen": k}}}} in the rubric's order.
    """
    table = {}
    for category, findings in rubric.items():
        asked = [(row, text) for row, text in zip(prompts, answers, strict=True) if row["category"] == category]
        seen = {f["name"]: sum(shows(text, f, row.get("planted", "")) for row, text in asked) for f in findings}
        found = {f["name"]: {"wanted": f["wanted"], "seen": seen[f["name"]]} for f in findings}
        table[category] = {"prompts": len(asked), "findings": found}
    return table


def shows(answer: str, finding: dict, planted: str = "") -> bool:
    """Tell whether one clause of the answer has the finding's pattern and, in that clause, not its `unless`."""
    pattern = re.compile(finding["pattern"].replace(PLANTED, re.escape(planted)), re.IGNORECASE)
    unless = re.compile(finding["unless"], re.IGNORECASE)
    clauses = [clause for clause in CLAUSE.split(answer.replace("’", "'")) if re.search(r"\w", clause)]
    return any(pattern.search(clause) and not unless.search(clause) for clause in clauses or [answer])


def _read_rubric(path: Path) -> dict[str, list[dict]]:
    rubric = read_yaml(path, dict)
    if not all(isinstance(found, list) and found for found in rubric.values()):
        raise UserError(f"{path}: expected categories, each with a list of findings, got {rubric!r:.60}")
    for category, findings in rubric.items():
        rubric[category] = [_finding(f, f"{path}: {category}, finding {n}") for n, f in enumerate(findings, start=1)]
        if len({f["name"] for f in rubric[category]}) < len(findings):
            raise UserError(f"{path}: {category}: two findings have the same name; give each its own")
    return rubric


def _finding(finding: dict, where: str) -> dict:
    """A finding whose lists of regular expressions are one each; raises UserError where it is not well formed."""
    if not isinstance(finding, dict) or {*finding, "unless"} != {"name", "wanted", "pattern", "unless"}:
        raise UserError(f"{where}: expected name, wanted, pattern and perhaps unless, got {finding!r:.80}")
    if not isinstance(finding["name"], str) or not isinstance(finding["wanted"], bool):
        raise UserError(f"{where}: expected a text as name, true or false as wanted, got {finding!r:.80}")
    finding = {"unless": ["(?!)"]} | finding  # an expression that no text has
    return finding | {key: _any_of(finding[key], f"{where}: {key}") for key in ("pattern", "unless")}


def _any_of(expressions: list[str], where: str) -> str:
    if not isinstance(expressions, list) or not expressions:
        raise UserError(f"{where}: expected a list of regular expressions, got {expressions!r:.80}")
    for expression in expressions:
        try:
            re.compile(expression)
        except (re.error, TypeError) as error:
            raise UserError(f"{where}: {expression!r} is no regular expression: {error}") from error
    return "|".join(expressions)


def _need_texts(row: dict, columns: tuple[str, ...], where: str) -> None:
    for column in columns:
        if not isinstance(row.get(column), str) or not row[column].strip():
            raise UserError(f"{where}: {column}: expected a text, got {row.get(column)!r}")
