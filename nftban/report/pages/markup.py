"""HTML and SVG that hostile text cannot break out of.

Takes names of elements, their attributes and contents; gives `Safe` text.  What is not Safe is escaped, so that a page
is safe because of what it is made with, not because nobody forgot anything.
Guarantees: text in a page shows what it is: characters that are not printable come out as their escapes; a page's
Content-Security-Policy forbids scripts, network and all styles but its own.
Does not: check that elements may stand in one another.
Source: HTML Living Standard 13.1; Content Security Policy Level 3, 2.3.1.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape

from nftban.report.text import shown

_VOID = frozenset(("meta", "br", "link"))


class Safe(str):
    """Markup, as opposed to text."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str | float | bool) -> Safe:
    """`element("td", "<3", class_="name")`; of attributes, `_` is `-`, one at the end is left out, False is none."""
    written = []
    for key, value in attributes.items():
        if value is False:
            continue
        text = f"{value:g}" if isinstance(value, float) else str(value)
        written.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown(text))}"')
    opening = f"<{tag}{''.join(written)}>"
    return Safe(opening) if tag in _VOID else Safe(f"{opening}{joined(*content)}</{tag}>")


def joined(*content: str) -> Safe:
    """All of it, one behind the other."""
    return Safe("".join(each if isinstance(each, Safe) else escape(shown(each, "\n")) for each in content))


def document(title: str, style: str, *content: str) -> str:
    """A whole page with its style."""
    digest = b64encode(sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        Safe(f"<style>{style}</style>"),
    )
    body = element("body", *content)
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"
