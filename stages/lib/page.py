"""report.html: one file that opens offline."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.lib.results import HEADER, NOTES, SYNTHETIC

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def page(
    rows: list[tuple[str, ...]],
    what: dict[str, str],
    synthetic: bool,
    pictures: dict[str, str],
    answers: dict[str, list[dict]],
    funnel: dict,
    conversations: int = 6,
) -> str:
    """The page's HTML: table, inlined SVG pictures, sample conversations side by side, data counts."""
    environment = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined)
    columns = [[row for row in answers[name] if row["kind"] == "dialogue"][:conversations] for name in answers]
    return environment.get_template(TEMPLATE.name).render(
        header=HEADER,
        rows=rows,
        notes=NOTES,
        what=what,
        warning=SYNTHETIC if synthetic else "",
        pictures={name: svg[svg.index("<svg") :] for name, svg in pictures.items()},
        names=list(answers),
        conversations=list(zip(*columns, strict=True)),
        funnel=funnel,
    )
