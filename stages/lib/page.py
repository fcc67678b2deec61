"""report.html: one file that opens offline."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.lib.results import DIVERGENCE, HEADER, NOTES, SYNTHETIC, VERIFIED

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def page(
    rows: list[tuple[str, ...]],
    verified: list[tuple[str, ...]],
    checks: list[str],
    what: dict[str, str],
    synthetic: bool,
    pictures: dict[str, str],
    answers: dict[str, list[dict]],
    funnel: dict,
    conversations: int = 6,
) -> str:
    """The page's HTML: tables, inlined SVG pictures, sample conversations side by side, data counts."""
    environment = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined)
    columns = [[row for row in answers[name] if row["kind"] == "dialogue"][:conversations] for name in answers]
    return environment.get_template(TEMPLATE.name).render(
        header=HEADER,
        rows=rows,
        notes=NOTES,
        verified_header=VERIFIED,
        verified=verified,
        divergence=DIVERGENCE,
        checks=checks,
        what=what,
        warning=SYNTHETIC if synthetic else "",
        pictures={name: svg[svg.index("<svg") :] for name, svg in pictures.items()},
        names=list(answers),
        conversations=list(zip(*columns, strict=True)),
        funnel=funnel,
    )
