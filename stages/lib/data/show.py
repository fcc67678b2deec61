"""Print prepared or dropped records readably.

    python -m stages.lib.data.show data/prepared/train.jsonl --n 5

What will be trained on, the assistant's text and the end of its turn, is green and has a bar at its left. Colours
are left out where the output is no terminal, or NO_COLOR is set.
"""

import argparse
import os
import shutil
import sys
import textwrap
from itertools import islice
from pathlib import Path

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_jsonl

GREEN, BOLD, DIM, RESET = "\033[32m", "\033[1m", "\033[2m", "\033[0m"
KEYS = ("reason", "detail", "duplicate_of", "shared", "answer_idx")


def shown(record: dict, width: int, colour: bool) -> str:
    """One record as text, its messages in at most `width` columns."""

    def styled(style: str, text: str) -> str:
        return f"{style}{text}{RESET}" if colour else text

    lines = [styled(BOLD, f"── {record.get('id', '')} {record['source']}, row {record['row']} ".replace("  ", " "))]
    lines += [styled(DIM, f"{key}: {record[key]}") for key in KEYS if key in record]
    for message in record["messages"]:
        trained = message["role"] == "assistant" and "reason" not in record
        lines.append(styled(DIM, message["role"]))
        text = message["content"] + (" ■" if trained else "")
        bar = "┃ " if trained else "  "
        for line in text.splitlines():
            for piece in textwrap.wrap(line, max(20, width - len(bar))) or [""]:
                lines.append(styled(GREEN, bar + piece) if trained else bar + piece)
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Print the first records of a file; raises UserError where it cannot be read or holds no records."""
    parser = argparse.ArgumentParser(prog="python -m stages.lib.data.show", description="Print records readably.")
    parser.add_argument("file", type=Path, help="a .jsonl file of data/prepared/")
    parser.add_argument("--n", type=int, default=5, help="how many records")
    given = parser.parse_args(arguments)
    if not given.file.is_file():
        raise UserError(f"{given.file} is no file; expected a .jsonl file of data/prepared/, which `dvc repro` writes")
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for number, record in islice(read_jsonl(given.file), max(0, given.n)):
        if missing := {"source", "row", "messages"} - set(record):
            raise UserError(
                f"{given.file}:{number}: no {', '.join(sorted(missing))}; expected a file of data/prepared/"
            )
        print(shown(record, shutil.get_terminal_size().columns, colour), end="\n\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"show: {error}")
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
