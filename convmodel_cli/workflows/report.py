"""report.html: a run's journal and record as one page to look at, without scripts or anything from outside."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from convmodel_cli.escaping import escaped
from convmodel_cli.storage import replace_file, storing
from convmodel_cli.workflows.history import History, parse_object
from convmodel_cli.workflows.record import RECORD
from convmodel_cli.workflows.run_folder import EVENTS, REPORT
from convmodel_cli.workflows.summary import figure, summarize

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATE = Path(__file__).with_name("report.html.jinja")


def write_report(folder: Path, history: History | None = None, broke_off: str = "") -> None:
    """Replace the page at once. `history` is what is known of the journal already; `broke_off` says why a run ended."""
    history = history or History()
    history.read_on(folder / EVENTS)
    record = parse_object((folder / RECORD).read_bytes()) if (folder / RECORD).is_file() else {}
    page = _template().render(summarize(history, record, broke_off)).encode()
    with storing(folder):
        replace_file(folder / REPORT, lambda path: path.write_bytes(page))


@cache
def _template() -> Template:
    from jinja2 import Environment

    # Every expression of the template passes here, so none can be forgotten; autoescape comes after it.
    environment = Environment(
        autoescape=True, finalize=lambda value: escaped(str(value)), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = figure
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
