"""No bytes in a log raise, and no client makes the filters see another address than the server wrote.

The second is checked by building lines as Postfix and sshd do, with text of the client's choice wherever they put
any, and asking that whatever comes out names the server-written address or nobody.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nftban.detect import filterfile
from nftban.detect.envelope import envelope
from nftban.detect.filterfile import Filter
from nftban.detect.inifile import parse
from nftban.detect.jailfile import seconds
from nftban.detect.matcher import Matcher
from nftban.detect.timestamps import Timestamps
from nftban.errors import Fault
from nftban.records import LogLine

FILTERS = Path(__file__).parents[2] / "rules" / "filters"
NOW = 1795552000.0
SERVER = "203.0.113.9"
FORGED = "198.51.100.1"


def loaded(spec: str) -> Filter:
    result = filterfile.load(spec, [FILTERS])
    assert isinstance(result, Filter), result
    return result


ALL = [loaded(f"{name}[mode={mode}]") for name in ("postfix", "sshd") for mode in ("normal", "aggressive")]
SAMPLES = sorted(
    line
    for file in FILTERS.glob("*.samples")
    for line in file.read_text().split("\n")
    if line and not line.startswith((" ", "#", "["))
)

# Pieces from which hostile text is built: the servers' own words, and another's address in every dress.
PIECES = (
    FORGED, f"[{FORGED}]", f"unknown[{FORGED}]", f"x[{FORGED}]:25", f"[{FORGED}]:25", f"::ffff:{FORGED}",
    " from ", ": ", "; ", " port 22", " ssh2", " [preauth]", "> ", "<", "]", "[", "\"", "'", "\\", " ", "]: ", ",",
    "warning: ", "non-SMTP command", "improper command pipelining after EHLO", "too many errors after RCPT",
    "lost connection after AUTH", "disconnect from ", " unknown=0/1", " auth=0/1", " auth=1", " commands=0/1",
    "NOQUEUE: reject: RCPT from ", "550 5.7.1 ", "Service unavailable; Client host ", " blocked using zen.spamhaus.org",
    "SASL LOGIN authentication failed: ", ", sasl_username=", "PREGREET 5 after 0.1 from ", " helo=<x>", "client=",
    "Failed password for ", "invalid user ", "Invalid user ", "Accepted password for root", "Connection closed by ",
    "authenticating user root ", "Too many authentication failures", "rhost=", " user=", "Disconnected from ",
    "hostname x does not resolve to address ", "addr ", " listed by domain x as 127.0.0.2", "postfix/smtpd[1]: ",
    "sshd[1]: ", "Nov 24 20:00:00 mail ", "a", "\t", "\r", "\x00", "\\r\\n", "é", "DNSBL rank 9 for ",
)  # fmt: skip
hostile = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=14).map("".join)
# {c}: the client's text; every other word is the server's.
LINES = (
    "postfix/smtpd[7]: warning: non-SMTP command from unknown[{a}]: {c}",
    "postfix/smtpd[7]: warning: non-SMTP command from mx.example.org[{a}]: {c}",
    "postfix/smtpd[7]: improper command pipelining after EHLO from unknown[{a}]: {c}",
    "postfix/smtpd[7]: warning: improper command pipelining after CONNECT from unknown[{a}]: {c}",
    "postfix/smtpd[7]: warning: Illegal address syntax from unknown[{a}] in RCPT command: {c}",
    "postfix/smtpd[7]: warning: unknown[{a}]: request longer than 2048: {c}",
    "postfix/smtpd[7]: warning: unknown[{a}]: SASL {c} authentication failed: authentication failure",
    "postfix/smtpd[7]: warning: unknown[{a}]: SASL LOGIN authentication failed: x, sasl_username={c}",
    "postfix/smtpd[7]: warning: unknown[{a}]: SASL LOGIN authentication failed: {c}",
    "postfix/smtpd[7]: NOQUEUE: reject: RCPT from unknown[{a}]: 554 5.7.1 <{c}>: Relay access denied; "
    "from=<{c}> to=<{c}> proto=ESMTP helo=<{c}>",
    "postfix/smtpd[7]: NOQUEUE: reject: RCPT from unknown[{a}]: 450 4.7.1 <{c}>: Helo command rejected: "
    "Host not found; from=<{c}> to=<{c}> proto=ESMTP helo=<{c}>",
    "postfix/smtpd[7]: 4A1B2C3D4E: client=unknown[{a}], sasl_method={c}, sasl_username={c}",
    "postfix/postscreen[7]: PREGREET 11 after 0.1 from [{a}]:4711: {c}",
    "postfix/postscreen[7]: NON-SMTP COMMAND from [{a}]:4711 after CONNECT: {c}",
    "postfix/postscreen[7]: COMMAND PIPELINING from [{a}]:4711 after {c}: {c}",
    "postfix/postscreen[7]: BARE NEWLINE from [{a}]:4711 after {c}",
    "postfix/postscreen[7]: NOQUEUE: reject: RCPT from [{a}]:4711: 550 5.7.1 Service unavailable; client [{a}] blocked "
    "using zen.spamhaus.org; from=<{c}>, to=<{c}>, proto=ESMTP, helo=<{c}>",
    "postfix/cleanup[7]: 4A1B2C3D4E: warning: header Subject: {c}",
    "sshd[7]: Invalid user {c} from {a} port 4711",
    "sshd[7]: Failed password for invalid user {c} from {a} port 4711 ssh2",
    "sshd[7]: Failed password for {c} from {a} port 4711 ssh2",
    "sshd[7]: error: PAM: Authentication failure for illegal user {c} from {a}",
    "sshd[7]: error: maximum authentication attempts exceeded for invalid user {c} from {a} port 4711 ssh2 [preauth]",
    "sshd[7]: Connection closed by invalid user {c} {a} port 4711 [preauth]",
    "sshd[7]: Connection reset by authenticating user {c} {a} port 4711 [preauth]",
    "sshd[7]: Disconnecting invalid user {c} {a} port 4711: Too many authentication failures [preauth]",
    "sshd[7]: Disconnecting invalid user {c} {a} port 4711: Change of username or service not allowed: ({c},ssh) -> "
    "({c},ssh) [preauth]",
    "sshd[7]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={a}  user={c}",
    "sshd[7]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=h.example  "
    "user={c}",
    "sshd[7]: Bad protocol version identification '{c}' from {a} port 4711",
    'sshd[7]: error: kex_exchange_identification: client sent invalid protocol identifier "{c}"',
    "sshd[7]: Unable to negotiate with {a} port 4711: no matching cipher found. Their offer: {c} [preauth]",
    "sshd[7]: Received disconnect from {a} port 4711:14: {c} [preauth]",
    "sshd[7]: User {c} from {a} not allowed because not listed in AllowUsers",
)


@st.composite
def clients(draw: st.DrawFn, template: str) -> str:
    """Hostile text; mostly a piece of what the servers write, about another address, cut at words so that it fits."""
    if draw(st.integers(0, 4)) == 0:
        return draw(hostile).replace("\n", " ")[:100]
    line = draw(st.one_of(st.just(template), st.sampled_from(LINES))).partition(": ")[2]
    words = line.replace("{a}", FORGED).replace("{c}", "x").split(" ")
    first = draw(st.integers(0, len(words) - 1))
    piece = " ".join(words[first : draw(st.integers(first + 1, len(words)))])
    before = draw(st.sampled_from(("", "x", "x ", ": ", "> ", "; ")))
    return before + piece + draw(st.sampled_from(("", " ", ":", " x", ">")))


# Names no address: whatever it is given must come from the line before.
FOLLOWING = "Nov 24 20:00:01 mail sshd[7]: error: kex_exchange_identification: Connection closed by remote host"


@pytest.mark.parametrize("template", LINES)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_address_is_the_one_the_server_wrote(template: str, data: st.DataObject) -> None:
    first, *others = template.split("{c}")
    text = first + "".join(data.draw(clients(template)) + piece for piece in others)
    line = f"Nov 24 20:00:00 mail {text.replace('{a}', SERVER)}"
    for filter in ALL:
        matcher = Matcher(filter)
        for each in (line, FOLLOWING):
            result = matcher.match(LogLine("log", each), NOW)
            assert result is None or str(result.prefix) == SERVER, line


@given(
    st.one_of(st.binary(max_size=400), st.sampled_from(SAMPLES).map(str.encode), hostile.map(str.encode)),
    st.binary(max_size=40),
)
@settings(max_examples=500, deadline=None)
@example(b"\x00" * 100, b"")
@example(b"Nov 24 20:00:00 mail postfix/smtpd[1]: \xff\xfe", b"")
def test_no_bytes_raise(head: bytes, tail: bytes) -> None:
    text = (head + tail).replace(b"\n", b" ").decode(errors="backslashreplace")
    envelope(text, Timestamps(), NOW)
    for filter in ALL:
        matcher = Matcher(filter)
        for _ in range(2):
            matcher.match(LogLine("log", text), NOW)


@given(st.sampled_from(SAMPLES), st.data())
@settings(max_examples=500, deadline=None)
def test_no_damaged_sample_raises(sample: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(sample)))
    insert = data.draw(hostile)
    matcher = Matcher(data.draw(st.sampled_from(ALL)))
    for text in (sample[:position] + insert + sample[position:], sample[:position] + insert, sample[position:]):
        matcher.match(LogLine("log", text), NOW)
    assert matcher.counts.lines == 3


@given(st.text(max_size=300))
@settings(max_examples=500, deadline=None)
def test_no_ini_text_raises_and_each_fault_has_its_line(text: str) -> None:
    faults: list[Fault] = []
    parse(text, "x.conf", faults)
    lines = text.count("\n") + 1
    assert all(1 <= fault.line <= lines for fault in faults)


@given(st.text(alphabet="0123456789dhmwsy-+. x", max_size=12))
@settings(max_examples=500, deadline=None)
def test_a_span_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(seconds(text), float)


def test_long_hostile_lines_take_no_long_time() -> None:
    """64 KiB of whatever might make an expression try again and again; each must stay far below a second."""
    heads = [f"Nov 24 20:00:00 mail {line.partition('{c}')[0].replace('{a}', SERVER)}" for line in LINES]
    fills = [
        "a",
        " ",
        "<",
        ">",
        " from ",
        f" from {FORGED} port 22",
        ", sasl_username=",
        " helo=<",
        "1=1/1 ",
        "a:",
        "1.1.",
    ]
    for filter in ALL:
        matcher = Matcher(filter)
        for head in (*heads, ""):
            for fill in fills:
                text = (head + fill * (65536 // len(fill)))[:65536]
                began = time.perf_counter()
                matcher.match(LogLine("log", text), NOW)
                assert time.perf_counter() - began < 0.5, (filter.spec, head, fill)
