"""results.md: what was run, what may be said of it, the tables, how to read them."""

from stages.lib.reporting.findings import Findings
from stages.lib.reporting.notes import NOT_A_DEVICE, SYNTHETIC, TITLES
from stages.lib.reporting.tables import Table


def results_markdown(findings: Findings) -> str:
    """The text of results.md."""
    warning = [f"**{SYNTHETIC}**", ""] if findings.synthetic else []
    contamination = findings.contamination if findings.clean else f"**{findings.contamination}**"
    lines = ["# Results", "", *warning, findings.base, "", contamination, ""]
    lines += [f"- {key}: {value}" for key, value in findings.run.items()]
    lines += ["", *findings.sentences]
    for name, table in findings.tables.items():
        lines += ["", f"## {TITLES[name]}", "", *table_lines(table), "", findings.notes[name]]
        if name == "verified":
            lines += ["", "Of f16, all of this held:", "", *(f"- {line}" for line in findings.checks)]
    return "\n".join([*lines, "", NOT_A_DEVICE, ""])


def table_lines(table: Table) -> list[str]:
    """A table's lines in Markdown; a bar in a cell does not end it."""
    rows = (table.header, ("---",) * len(table.header), *table.rows)
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in rows]
