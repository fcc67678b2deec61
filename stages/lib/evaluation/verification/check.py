"""One statement about a GGUF that was checked."""

from typing import NamedTuple


class Check(NamedTuple):
    """What was checked, whether it holds, what was observed, and what is expected."""

    name: str
    holds: bool
    observed: str
    limit: str

    def as_json(self) -> dict[str, str | bool]:
        """As verification.json has it."""
        return {"check": self.name, "holds": bool(self.holds), "observed": self.observed, "limit": self.limit}

    def __str__(self) -> str:
        return f"{self.name}: {self.observed}, expected {self.limit}"
