"""Any bytes as a log: a replay ends with a result, and the page about it holds no element that they chose."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.replay.whole import replay
from nftban.report.pages.replay import page
from tests.unit.replay.test_page import Dom
from tests.unit.replay.test_whole import BOT, accepted, guess
from tests.unit.replay.test_whole import settings as loaded

PIECES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            guess(0, BOT).encode(),
            guess(1, f"{BOT}]: <img src=x>[").encode(),
            accepted(2, BOT, "AAAAAA").encode(),
            guess(3, BOT).encode().replace(b"LOGIN", b"<script>\xff\x00</script>"),
            b"2026-13-45T99:99:99 mail " + guess(0, BOT).encode(),
            b"client=[" + BOT.encode() + b"]",
            b"\x1f\x8b\x08",
            b"__CURSOR=",
            b"\n",
        ]
    ),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(PIECES, max_size=30))
def test_any_log_gives_a_result_and_a_harmless_page(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "mail.log"
        log.write_bytes(b"".join(pieces))
        result = replay([loaded(Path(folder))], [log])
    (found,) = result["settings"]
    assert len(found["bans"]) <= found["offences"]
    dom = Dom(page(result))
    assert not {tag for tag, _ in dom.elements} & {"script", "img", "iframe", "a"}
    assert not [name for _, each in dom.elements for name in each if name.startswith("on") or name in ("src", "href")]
