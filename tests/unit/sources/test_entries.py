"""The export format, in pieces of any size and with anything in it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.sources.chunks import LINE_LIMIT
from nftban.sources.entries import Entries, Entry


def written(**fields: bytes) -> bytes:
    """An entry as journalctl writes it: what is not plain text with its length in front."""
    out = b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1795564679385051\n__SEQNUM=7\n"
    for name, value in fields.items():
        plain = value.isascii() and all(0x20 <= byte < 0x7F or byte == 0x09 for byte in value)
        framed = b"=" + value if plain else b"\n" + len(value).to_bytes(8, "little") + value
        out += name.encode() + framed + b"\n"
    return out + b"\n"


def read(data: bytes, size: int) -> list[Entry]:
    entries = Entries()
    return [each for at in range(0, len(data), size) for each in entries.read(data[at : at + size])]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 400))
def test_what_was_written_is_read_whatever_it_is_and_however_it_comes(messages: list[bytes], size: int) -> None:
    data = b"".join(written(MESSAGE=message, SYSLOG_IDENTIFIER=b"x") for message in messages)
    found = read(data, size)
    assert [entry.fields[b"MESSAGE"] for entry in found] == messages
    for entry in found:
        line = entry.line()
        assert line is not None and line.startswith(b"2026-11-24T23:57:59.385051+00:00 - x: ")
        assert not any(byte < 0x20 or byte == 0x7F for byte in line)
        line.decode()
        assert (entry.cursor, entry.lacking) == ("s=1;i=2", 0)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000), st.integers(1, 600))
def test_any_bytes_are_no_exception(data: bytes, size: int) -> None:
    for entry in read(data + b"\n\n" + written(MESSAGE=b"x"), size):
        entry.line()


def test_a_message_without_end_takes_no_memory() -> None:
    for value in (b"a" * (5 * LINE_LIMIT), b"\xff" * (5 * LINE_LIMIT)):
        entries, most = Entries(), 0
        data = written(MESSAGE=value, _PID=b"12")
        found: list[Entry] = []
        for at in range(0, len(data), 1000):
            found += entries.read(data[at : at + 1000])
            most = max(most, len(entries._rest) + len(entries._value))
        assert most <= 2 * LINE_LIMIT
        (entry,) = found
        assert entry.fields[b"MESSAGE"] == value[:LINE_LIMIT]
        assert entry.lacking == 4 * LINE_LIMIT
        assert entry.fields[b"_PID"] == b"12"


def test_the_journal_s_own_fields_are_not_a_sender_s() -> None:
    (entry,) = read(written(MESSAGE=b"one", __CURSOR=b"another", **{"MESSAGE ": b""}), 7)
    assert entry.cursor == "s=1;i=2"


def test_an_entry_without_a_message_is_no_line() -> None:
    (entry,) = read(written(SYSLOG_IDENTIFIER=b"x"), 100)
    assert entry.line() is None


def test_the_line_has_what_there_is() -> None:
    def line(**fields: bytes) -> bytes:
        (entry,) = read(written(MESSAGE=b"m", **fields), 1000)
        text = entry.line()
        assert text is not None
        return text.partition(b" ")[2]

    assert line(_HOSTNAME=b"mail", SYSLOG_IDENTIFIER=b"postfix/smtpd", SYSLOG_PID=b"7", _PID=b"8") == (
        b"mail postfix/smtpd[7]: m"
    )
    assert line(_COMM=b"sshd", _PID=b"8") == b"- sshd[8]: m"
    assert line(SYSLOG_IDENTIFIER=b"a b[1]: c", SYSLOG_PID=b"9]") == b"- a_b_1___c: m"
