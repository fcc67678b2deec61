"""How figures read: names of the measures, numbers with intervals, differences, p-values, sizes, times."""

from typing import NamedTuple

MISSING = "not measured"


class Shown(NamedTuple):
    label: str
    decimals: int
    percent: bool  # a fraction, shown as a percentage
    wanted: str  # the direction of a gain


MEASURES = {
    "perplexity": Shown("perplexity", 3, False, "↓"),
    "bits_per_byte": Shown("bits per byte", 3, False, "↓"),
    "bleu": Shown("BLEU-4", 1, False, "↑"),
    "rouge_l": Shown("ROUGE-L", 1, True, "↑"),
    "chrf": Shown("chrF", 1, False, "↑"),
    "exact_match": Shown("MedQA by answer", 1, True, "↑"),
    "letter_exact_match": Shown("MedQA by letter", 1, True, "↑"),
    "generated_exact_match": Shown("MedQA as generated", 1, True, "↑"),
}
TEXT = ("perplexity", "bits_per_byte", "bleu", "rouge_l", "chrf")
WAYS = ("exact_match", "letter_exact_match", "generated_exact_match")


def heading(measure: str) -> str:
    """A measure's name and the direction of a gain."""
    shown = MEASURES[measure]
    return f"{shown.label} {shown.wanted}"


def value(measure: str, figures: dict, unit: str = "%") -> str:
    """The figure alone, e.g. `38.2%`; `not measured` where there is none."""
    shown, found = MEASURES[measure], figures.get(measure)
    if found is None:
        return MISSING
    return f"{100 * found:.{shown.decimals}f}{unit}" if shown.percent else f"{found:.{shown.decimals}f}"


def interval(measure: str, figures: dict) -> str:
    """The figure and its 95 % interval, e.g. `38.2% (33.5–43.0)`; of one without an interval, the figure."""
    low, high = (value(measure, {measure: figures.get(f"{measure}_{end}")}, unit="") for end in ("low", "high"))
    bare = value(measure, figures)
    return bare if MISSING in (bare, low, high) else f"{bare} ({low}–{high})"


def difference(measure: str, found: dict) -> tuple[str, str]:
    """A paired difference and its 95 % interval, signed; of percentages in percentage points.

    With as many decimals as it takes that an interval without 0 does not read as if it held 0.
    """
    shown = MEASURES[measure]
    ends = [(100 if shown.percent else 1) * found[key] for key in ("difference", "low", "high")]
    digits, nearest = shown.decimals if shown.percent else max(2, shown.decimals), min(abs(ends[1]), abs(ends[2]))
    while ends[1] * ends[2] > 0 and round(nearest, digits) == 0 and digits < 9:
        digits += 1
    texts = [signed(end, digits) for end in ends]
    return texts[0] + (" pp" if shown.percent else ""), f"{texts[1]} to {texts[2]}"


def signed(number: float, decimals: int) -> str:
    """A number with its sign, a true minus; what rounds to zero has none."""
    text = f"{number:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def share(part: float) -> str:
    return f"{part:.0%}"


def size(count: float) -> str:
    """Bytes in decimal units, with one to three digits before the point."""
    for unit, digits in (("bytes", 0), ("kB", 1), ("MB", 1)):
        if round(count, digits) < 1000:
            return f"{count:.{digits}f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds, rounded to the smaller of them."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02} s"
    return f"{round(seconds / 60) // 60} h {round(seconds / 60) % 60:02} min"


def listed(words: list[str]) -> str:
    """`a, b and c`"""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
