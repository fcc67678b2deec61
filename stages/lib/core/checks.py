"""Checks of a value of params.yaml, each naming the full key."""

from stages.lib.core.errors import UserError


def check(key: str, got: object, holds: bool, expected: str) -> None:
    """Raise UserError naming the key, what was got and what was expected, unless the condition holds."""
    if not holds:
        raise UserError(f"params.yaml: {key} is {got!r}, expected {expected}; fix it in conf/ or with -S {key}=…")


def one_of(key: str, got: str, choices: tuple[str, ...]) -> None:
    """Raise UserError unless `got` is one of the choices."""
    check(key, got, got in choices, choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}")


def at_least(key: str, section: object, **bounds: int) -> None:
    """Raise UserError unless each named value of the section reaches its bound."""
    for name, bound in bounds.items():
        value = getattr(section, name)
        check(f"{key}.{name}", value, value >= bound, f"at least {bound}")


def positive(key: str, section: object, *names: str) -> None:
    """Raise UserError unless each named value of the section is above 0."""
    for name in names:
        value = getattr(section, name)
        check(f"{key}.{name}", value, value > 0, "a number above 0")
