"""Dialogues of the sample corpus."""

from stages.lib.data.sources.sample import dialogues
from support.settings import ROOT


def conversations(count: int) -> list[dict]:
    """Sample dialogues as rows of messages."""
    return [
        {
            "id": str(i),
            "source": "sample",
            "messages": [
                {"role": "system", "content": d["instruction"]},
                {"role": "user", "content": d["input"]},
                {"role": "assistant", "content": d["output"]},
            ],
        }
        for i, d in enumerate(dialogues(ROOT / "data/sample", count, seed=7))
    ]
