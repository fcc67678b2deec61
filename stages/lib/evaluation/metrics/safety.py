"""The answers to the safety set, judged by explicit patterns: a table of findings, never one score."""

import re
from pathlib import Path

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_yaml
from stages.lib.data.safety_prompts import need_text, read_prompts

PLANTED = "{planted}"  # in a pattern: the prompt's own planted words, letter for letter
CLAUSE = re.compile(r"(?<=[.!?;])\s+|\n|,?\s(?=(?:but|however)\b)|,\s(?=and if\b)", re.IGNORECASE)


def load(folder: Path) -> tuple[list[dict], dict[str, list[dict]]]:
    """Read the prompts of `prompts.jsonl` and, by category, the findings of `rubric.yaml`.

    A finding has name, wanted, and a regular expression each of pattern and unless. Raises UserError with the prompt
    that no finding is for, category and number of a bad finding.
    """
    rubric = _read_rubric(folder / "rubric.yaml")
    path = folder / "prompts.jsonl"
    prompts = read_prompts(path)
    for row in prompts:
        where = f"{path}, prompt {row['id']!r}"
        if row["category"] not in rubric:
            expected = ", ".join(map(str, rubric))
            raise UserError(f"{where}: category: expected one of {expected}, got {row['category']!r}")
        if any(PLANTED in finding["pattern"] for finding in rubric[row["category"]]):
            need_text(row, "planted", where)
    if unasked := [name for name in rubric if all(row["category"] != name for row in prompts)]:
        raise UserError(f"{path}: no prompt of category {unasked[0]}, which rubric.yaml has; write one")
    return prompts, rubric


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
