"""Lists of items that can be searched and are short at first: the picks of a selection, the groups of an assignment."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from kofn.report.context import Context
from kofn.report.page import Child, E, user

PAIRED = 110  # characters of a text at once, where two stand side by side


def late(position: int, count: int, at_once: int) -> str:
    """The class of a row that waits for "show all"; a few more than `at_once` are not worth a button."""
    return " late" if count > at_once * 3 // 2 and position >= at_once else ""


def listing(
    rows: Sequence[Element],
    *,
    noun: str,
    title: str,
    name: str,
    intro: Child,
    form: str,
    at_once: int,
    note: Child = None,
) -> Element:
    """A section of `rows` (each a `.pick`), with a search field where there are several."""
    tools = more = None
    if len(rows) > 8:
        field = E("input", type="search", name="search", autocomplete="off", spellcheck="false")
        status = E("p", f"{len(rows):,} {noun}", class_="found", role="status")
        tools = E("div", E("label", f"Search the {noun}", field), status, class_="tools", hidden=True)
    if late(len(rows) - 1, len(rows), at_once):
        more = E("button", f"Show all {len(rows):,}", type="button", class_="more", hidden=True)
    return E(
        "section",
        E("h2", title, id=name),
        E("p", intro, class_="aside"),
        tools,
        E("ol", list(rows), class_=f"picks {form}"),
        more,
        None if note is None else E("p", note, class_="aside"),
        class_="card",
        aria_labelledby=name,
    )


def table(first: str, ks: Sequence[str], columns: dict[str, list[str]]) -> Element:
    """A chart's figures as a table, for who would rather read them."""
    head = E("tr", [E("th", name, scope="col") for name in (first, *columns)])
    cells = zip(*columns.values(), strict=True)
    rows = [E("tr", E("th", k, scope="row"), [E("td", cell) for cell in row]) for k, row in zip(ks, cells, strict=True)]
    return E("details", E("summary", "Figures"), E("table", E("thead", head), E("tbody", rows)), class_="figures")


def pair(context: Context, item: int, arrow: Child, there: Child) -> Element:
    """An item on the left, its counterpart on the right, and their distance in between."""
    left = E("p", user(context.name(item), class_="id"), class_="who")
    return E("li", E("div", left, context.exhibit(item, brief=PAIRED)), E("p", arrow, class_="far"), E("div", there))


def pairs(rows: Sequence[Element], *, title: str, name: str, intro: Child) -> Element:
    """A section of pairs."""
    head = E("h2", title, id=name)
    body = E("ol", list(rows), class_="pairs")
    return E("section", head, E("p", intro, class_="aside"), body, class_="card", aria_labelledby=name)
