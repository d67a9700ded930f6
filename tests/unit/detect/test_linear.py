"""The weaker expression for the linear engine: it may match more, never less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.detect import filterfile
from nftban.detect.expressions import compiled
from nftban.detect.filterfile import Filter
from nftban.detect.linear import guard

FILTERS = Path(__file__).parents[3] / "rules" / "filters"
PIECES = (
    r"a", r"\d", r"\D", r"\s", r"\S", r"\w", r"\W", r".", r"[a-c]", r"[^a-c]", r"[^\s]", r"[^\S]", r"[^\W]", r"[^\D-]",
    r"[\w.-]", r"\b", r"\B", r"^", r"$", r"(?:a|b)", r"(?i:A)", r"(?!a)", r"(?=a)", r"(?<!a)", r"\.", r"[\]\\^-]", r"é",
    r"(a)?", r"(?P<x>b)", r"(?:(c)|d)", r"[^é]", r"\n",
)  # fmt: skip
expressions = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from(("", "*", "+", "?", "{2}", "{0,3}", "{3,300}", "*?"))),
    max_size=6,
).map(lambda parts: "".join(piece + count * (piece not in ("^", "$", r"\b", r"\B")) for piece, count in parts))
texts = st.one_of(st.text(max_size=12), st.text(alphabet="abcdABC .-1\n\té٣ \x0b\x1c\u2003_]^\\", max_size=12))


@settings(max_examples=1500, deadline=None)
@given(expressions, texts, st.sampled_from((re.NOFLAG, re.IGNORECASE, re.MULTILINE)))
def test_what_matches_is_possible(expression: str, text: str, flags: re.RegexFlag) -> None:
    try:
        pattern = re.compile(expression, flags)
    except re.error:
        return
    possible = guard(pattern)
    assert possible is not None
    if pattern.search(text):
        assert possible(text)


@pytest.mark.parametrize(
    ("expression", "impossible"),
    [
        (r"^(a+)+b", "a" * 50_000),
        (r"^(?P<x>\w+) (?P=x)$", "a" * 50_000),
        (r"^(?P<x>a)?(?(x)b|c)$", "x" * 50_000),
        (r"^(\w+\s?)*: <HOST>", "word " * 10_000),
        (r"(.*?,){11}P <HOST>", "1," * 20_000),
    ],
)
def test_what_cannot_match_is_said_at_once(expression: str, impossible: str) -> None:
    possible = guard(compiled(expression))
    assert possible is not None and not possible(impossible)


def test_every_shipped_expression_has_a_guard() -> None:
    for name in filterfile.available([FILTERS]):
        loaded = filterfile.load(name, [FILTERS])
        if isinstance(loaded, Filter):
            assert all(guard(rule.pattern) for rule in loaded.rules)


def test_a_text_that_is_not_utf8_is_possible() -> None:
    possible = guard(re.compile("a"))
    assert possible is not None and possible("\udc80")
