"""How figures read: names of the measures, numbers with intervals, differences, p-values, sizes."""

from stages.lib.evaluation.metrics.measures import MEASURES

MISSING = "not measured"
NONE = "none"  # an interval or p of too few dialogues or questions
MOST_DECIMALS = 9  # of a difference


def heading(measure: str) -> str:
    """A measure's name and the direction of a gain."""
    shown = MEASURES[measure]
    return f"{shown.label} {'↑' if shown.more_is_better else '↓'}"


def value(measure: str, figures: dict, unit: str = "%") -> str:
    """The figure alone, e.g. `38.2%`; `not measured` where there is none."""
    shown = MEASURES[measure]
    figure = figures.get(measure)
    if figure is None:
        return MISSING
    return f"{100 * figure:.{shown.decimals}f}{unit}" if shown.percent else f"{figure:.{shown.decimals}f}"


def interval(measure: str, figures: dict) -> str:
    """The figure and its 95 % interval, e.g. `38.2% (33.5–43.0)`; of one without an interval, the figure."""
    low = value(measure, {measure: figures.get(f"{measure}_low")}, unit="")
    high = value(measure, {measure: figures.get(f"{measure}_high")}, unit="")
    bare = value(measure, figures)
    return bare if MISSING in (bare, low, high) else f"{bare} ({low}–{high})"


def difference(measure: str, compared: dict) -> tuple[str, str]:
    """A paired difference and its 95 % interval, signed; of percentages in percentage points.

    With as many decimals as it takes that an interval without 0 does not read as if it held 0; `none` for the interval
    where too little was measured for one.
    """
    shown = MEASURES[measure]
    scale = 100 if shown.percent else 1
    middle = scale * compared["difference"]
    decimals = shown.decimals if shown.percent else max(2, shown.decimals)
    unit = " pp" if shown.percent else ""
    if "low" not in compared:
        return signed(middle, decimals) + unit, NONE
    low, high = (scale * compared[end] for end in ("low", "high"))
    while low * high > 0 and round(min(abs(low), abs(high)), decimals) == 0 and decimals < MOST_DECIMALS:
        decimals += 1
    return signed(middle, decimals) + unit, f"{signed(low, decimals)} to {signed(high, decimals)}"


def signed(number: float, decimals: int) -> str:
    """A number with its sign, a true minus; what rounds to zero has none."""
    text = f"{number:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def p_value(p: float | None) -> str:
    """A p-value with three decimals; `none` where too little was measured for one."""
    if p is None:
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def share(key: str, figures: dict) -> str:
    """A fraction as a whole percentage, with its 95 % interval where it has one, e.g. `97% (84–99)`."""
    if key not in figures:
        return MISSING
    if f"{key}_low" not in figures:
        return f"{figures[key]:.0%}"
    return f"{figures[key]:.0%} ({100 * figures[f'{key}_low']:.0f}–{100 * figures[f'{key}_high']:.0f})"


def size(count: float) -> str:
    """Bytes in decimal units, with one to three digits before the point."""
    for unit, digits in (("bytes", 0), ("kB", 1), ("MB", 1)):
        if round(count, digits) < 1000:
            return f"{count:.{digits}f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
