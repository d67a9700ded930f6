"""Plots as SVG inside a page.

Takes numbers with their names; gives columns, bars and tables that shade their numbers.  Each mark carries its number
as `data-value` and its name as a tooltip.
Guarantees: a plot is as wide as its place, and its letters keep their size: positions across are in per cent.  Colours
are the page's (classes), light or dark.
Does not: count anything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nftban.report.pages.markup import Safe, element, joined
from nftban.report.text import number

HEIGHT = 120
_TOP, _FOOT = 16, 20


def columns(
    name: str,
    about: str,
    values: Sequence[int],
    names: Sequence[str],
    *,
    kind: str,
    labelled: Collection[int] = (),
    marked: Collection[int] = (),
    height: int = HEIGHT,
) -> Safe:
    """A column for each value.  name: data-plot; about: in words, for who cannot see it; kind: its colour's class;
    labelled: which columns have their name below; marked: which stand out."""
    most = max(values, default=0)
    base = _TOP + height
    width = 100 / max(len(values), 1)
    lines = [
        element("line", x1="0", x2="100%", y1=y, y2=y, class_="grid")
        for y in ((_TOP, _TOP + height // 2, base) if most else (base,))
    ]
    lines.append(element("text", number(most), x="0", y=_TOP - 4, class_="scale"))
    marks = []
    for at, (value, told) in enumerate(zip(values, names, strict=True)):
        tall = round(height * value / most, 2) if most else 0.0
        if value:
            tall = max(tall, 1.5)
        gap = min(width * 0.15, 0.6)
        marks.append(
            element(
                "rect",
                element("title", f"{told}: {number(value)}"),
                x=f"{at * width + gap / 2:.3f}%",
                width=f"{width - gap:.3f}%",
                y=base - tall,
                height=tall,
                class_=f"{kind} marked" if at in marked else kind,
                data_name=told,
                data_value=value,
            )
        )
    labels = []
    for at in sorted(labelled):
        x = (at + 0.5) * width
        anchor = "start" if x < 8 else "end" if x > 92 else "middle"
        x = 0 if anchor == "start" else 100 if anchor == "end" else x
        if len(values) <= 25:
            anchor, x = "middle", (at + 0.5) * width
        labels.append(element("text", names[at], x=f"{x:.3f}%", y=base + 14, text_anchor=anchor, class_="label"))
    return element(
        "svg",
        *lines,
        *marks,
        *labels,
        width="100%",
        height=base + _FOOT,
        role="img",
        aria_label=about,
        data_plot=name,
    )


def bar(share: float, kind: str) -> Safe:
    """A bar that fills this share (0 to 1) of its place."""
    mark = element("rect", width=f"{100 * share:.2f}%", height="100%", class_=kind)
    return element("svg", mark, class_="bar", aria_hidden="true")


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, name: str, numbers: Collection[int] = (), caption: str = ""
) -> Safe:
    """numbers: the columns that have numbers."""

    def cell(kind: str, at: int, content: str) -> Safe:
        return element(kind, content, class_="number" if at in numbers else False)

    top = element("thead", element("tr", *(cell("th", at, each) for at, each in enumerate(head))))
    body = element("tbody", *(element("tr", *(cell("td", at, each) for at, each in enumerate(row))) for row in rows))
    said = [element("caption", caption)] if caption else []
    return element("div", element("table", *said, top, body, data_table=name), class_="wide", tabindex=0)


def shaded(name: str, names: Sequence[str], values: Sequence[Sequence[int]]) -> Safe:
    """A number for each two of the names, the darker the nearer to the biggest."""
    most = max((value for row in values for value in row), default=0)

    def cell(value: int) -> Safe:
        heat = round(9 * value / most) if most else 0
        return element("td", number(value), class_=f"number heat{heat}", data_value=value)

    head = element("tr", element("th", ""), *(element("th", element("span", each), class_="steep") for each in names))
    rows = [
        element(
            "tr",
            element("th", each, scope="row"),
            *map(cell, row),
        )
        for each, row in zip(names, values, strict=True)
    ]
    return element("div", element("table", head, *rows, data_plot=name), class_="wide", tabindex=0)


def figure(title: str, about: str, *content: str) -> Safe:
    """A plot under its title, with a sentence about it."""
    return element(
        "section", element("h3", title), *([element("p", about, class_="about")] if about else []), joined(*content)
    )
