"""What numpy writes and reads is what codec.py writes and reads, one element at a time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.kernel import bulk, codec
from nftban.kernel.codec import BadMessageError, OneElement
from nftban.records import Element

NOW = 1_000_000.0


def elements(width: int, interval: bool) -> st.SearchStrategy[list[Element]]:
    highest = (1 << 8 * width) - 1
    ends = st.one_of(st.none(), st.floats(NOW - 5, NOW + 1e9))
    keys = st.one_of(st.integers(0, highest), st.integers(highest - 3, highest))
    return st.lists(
        st.builds(
            lambda a, b, until: Element("s", min(a, b), max(a, b) if interval else min(a, b), until), keys, keys, ends
        ),
        max_size=30,
    )


SHAPES = [(width, interval) for width in (4, 16) for interval in (False, True)]


def one_by_one(several: list[Element], width: int, interval: bool, timed: bool) -> list[bytes]:
    waits = [None if not timed or e.until is None else round((e.until - NOW) * 1000) for e in several]
    return [codec.element_bytes(e, width, interval, wait) for e, wait in zip(several, waits, strict=True)]


@pytest.mark.parametrize(("width", "interval"), SHAPES)
@pytest.mark.parametrize("timed", [True, False])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_same_bytes(width: int, interval: bool, timed: bool, data: st.DataObject) -> None:
    several = data.draw(elements(width, interval))
    written = bulk.element_list(several, width, interval, NOW if timed else None)
    expected = one_by_one(several, width, interval, timed)
    # Permanent ones first, then the others; in each the topmost range last.
    assert len(written) == sum(map(len, expected))
    left = list(expected)
    while written:
        # A range up to the highest key is written as its start alone, with which others may begin as well.
        first = max((one for one in left if written.startswith(one)), key=len, default=b"")
        assert first
        left.remove(first)
        written = written[len(first) :]
    assert left == []


@pytest.mark.parametrize(("width", "interval"), SHAPES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_same_entries(width: int, interval: bool, data: st.DataObject) -> None:
    several = data.draw(elements(width, interval))
    written = b"".join(one_by_one(several, width, interval, timed=True))
    payload = codec.list_request(codec.NFT_MSG_NEWSETELEM, 0, "t", "s", written).payload
    assert codec.list_elements(payload) == written
    assert bulk.entries(written, width, interval) == codec.entries([payload], width, interval)


@given(st.one_of(st.binary(max_size=200), st.lists(st.binary(max_size=40)).map(
    lambda values: b"".join(codec.attribute(codec.NFTA_LIST_ELEM, value) for value in values)
)))  # fmt: skip
def test_reading_returns_or_raises_bad_message(hostile: bytes) -> None:
    for width in (4, 16):
        try:
            found = bulk.read(hostile, width)
        except BadMessageError:
            continue
        assert len(found.key) == len(found.is_end) == len(found.expires_in)


def test_a_catch_all_element_is_left_out() -> None:
    flags = codec.attribute(codec.NFTA_SET_ELEM_FLAGS, codec.NFT_SET_ELEM_CATCHALL.to_bytes(4, "big"))
    listed = codec.nested(codec.NFTA_LIST_ELEM, flags) + codec.list_element(7, 4)
    assert bulk.read(listed, 4).numbers() == [7]


def test_keys_of_another_width_are_refused() -> None:
    with pytest.raises(BadMessageError, match="a key of 16 bytes in a set of 4-byte keys"):
        bulk.read(codec.list_element(7, 16), 4)


@given(
    st.sampled_from([4, 16]), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 3),
    st.one_of(st.none(), st.integers(1, 1 << 60)), st.sampled_from(["a", "ban4_all", "ban6net64_submission"]),
)  # fmt: skip
def test_the_prepared_transaction_is_the_ordinary_one(
    width: int, key: int, number: int, timeout: int | None, name: str
) -> None:
    kind, flags = codec.NFT_MSG_NEWSETELEM, codec.NLM_F_CREATE
    made = OneElement.of(kind, flags, "nftban", name, width, timeout is not None)
    request = codec.list_request(kind, flags, "nftban", name, codec.list_element(key, width, timeout_ms=timeout))
    assert made.datagram(number, key, timeout) == codec.batch([request], number)


def test_only_the_plain_acknowledgement_is_success() -> None:
    plain = codec._ACK.pack(36, codec.NLMSG_ERROR, 0, 5, 9, 0)
    assert codec.is_success(memoryview(plain), 5)
    assert not codec.is_success(memoryview(plain), 6)
    assert not codec.is_success(memoryview(plain[:-1]), 5)
    assert not codec.is_success(memoryview(plain + plain), 5)
    assert not codec.is_success(memoryview(codec._ACK.pack(36, codec.NLMSG_ERROR, 0, 5, 9, -1)), 5)
    assert not codec.is_success(memoryview(codec._ACK.pack(36, codec.NLMSG_DONE, 0, 5, 9, 0)), 5)


def answer(elements: bytes, name: str = "s") -> bytes:
    request = codec.list_request(codec.NFT_MSG_NEWSETELEM, 0, "t", name, elements)
    return codec.message(codec.Request(request.type, 0, request.payload), 3)


def test_answers_are_joined_or_refused() -> None:
    two = [codec.list_element(1, 4), codec.list_element(2, 4, timeout_ms=9)]
    assert codec.answered_elements([]) == b""
    assert codec.answered_elements([answer(two[0]), answer(two[1]), answer(two[0])]) == two[0] + two[1] + two[0]
    for bad in ([answer(two[0]), answer(two[0], "r")], [answer(two[0]) + answer(two[1])], [b"\0" * 40]):
        with pytest.raises(BadMessageError):
            codec.answered_elements(bad)
