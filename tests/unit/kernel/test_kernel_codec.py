from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nftban.kernel import codec
from nftban.kernel.codec import BadMessageError, Message
from nftban.records import Element

NEW, LISTS = codec.NFT_MSG_NEWSETELEM, codec.NLM_F_CREATE


def requests(elements: list[bytes], limit: int = codec.LIST_BYTES) -> list[tuple[codec.Request, int]]:
    return list(codec.element_requests(NEW, LISTS, "nftban", "ban4_all", elements, limit))


def payloads(elements: list[bytes]) -> list[bytes]:
    return [request.payload for request, _ in requests(elements)]


def test_one_element_byte_for_byte() -> None:
    """Written down by hand from linux/netfilter/nf_tables.h, for a little-endian machine."""
    element = Element("ban4_all", 0xC0000207, 0xC0000207)
    assert codec.element_bytes(element, 4, interval=False, timeout_ms=3_600_000) == bytes.fromhex(
        "28000180"  # NFTA_LIST_ELEM, nested, 40 bytes
        "0c000180" "08000100" "c0000207"  # NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE 192.0.2.7 }
        "0c000400" "000000000036ee80"  # NFTA_SET_ELEM_TIMEOUT
        "0c000500" "000000000036ee80"  # NFTA_SET_ELEM_EXPIRATION
    )  # fmt: skip


def test_a_range_is_a_start_and_an_end_but_at_the_top_of_the_space() -> None:
    inner = codec.element_bytes(Element("r", 10, 19), 4, interval=True)
    assert inner == codec.list_element(10, 4) + codec.list_element(20, 4, codec.NFT_SET_ELEM_INTERVAL_END)
    assert codec.element_bytes(Element("r", 10, 2**32 - 1), 4, interval=True) == codec.list_element(10, 4)


def test_lists_stay_below_64_kib_and_lose_nothing() -> None:
    elements = [codec.list_element(i, 16, 0, 1000) for i in range(3000)]
    made = requests(elements)
    assert len(made) > 1
    assert all(len(request.payload) < 65_536 for request, _ in made)
    assert sum(count for _, count in made) == 3000
    assert [e.first for e in codec.entries((r.payload for r, _ in made), 16, interval=False)] == list(range(3000))
    assert [count for _, count in requests(elements[:5], limit=0)] == [1] * 5


@pytest.mark.parametrize(
    ("asked", "held"), [(-5, 0.001), (0, 0.001), (1500, 1.5), (10**30, codec.LONGEST_TIMEOUT_MS / 1000)]
)
def test_timeouts_are_held_within_what_the_kernel_takes(asked: int, held: float) -> None:
    (entry,) = codec.entries(payloads([codec.list_element(1, 4, 0, asked)]), 4, interval=False)
    assert entry.expires_in == held


def test_a_batch_is_numbered_and_only_its_last_request_asks_for_an_acknowledgement() -> None:
    made = [codec.Request(NEW, LISTS, b"\x01\0\0\0"), codec.Request(NEW, LISTS, b"\x02\0\0\0")]
    begin, first, last, end = codec.messages(codec.batch(made, 7))
    assert [m.sequence for m in (begin, first, last, end)] == [7, 8, 9, 10]
    assert (begin.type, end.type) == (codec.NFNL_MSG_BATCH_BEGIN, codec.NFNL_MSG_BATCH_END)
    assert first.type == NEW | codec.NFNL_SUBSYS_NFTABLES << 8
    assert [bool(m.flags & codec.NLM_F_ACK) for m in (begin, first, last, end)] == [False, False, True, False]
    assert (first.payload, last.payload) == (b"\x01\0\0\0", b"\x02\0\0\0")


def test_ends_without_starts_and_starts_without_ends() -> None:
    end = codec.NFT_SET_ELEM_INTERVAL_END
    listed = [(9, end), (5, end), (5, 0), (0, end), (2, 0), (20, 0), (30, 0)]
    entries = codec.entries(payloads([codec.list_element(key, 4, flags) for key, flags in listed]), 4, interval=True)
    assert [(e.first, e.last) for e in entries] == [(2, 4), (5, 8), (20, 29), (30, 2**32 - 1)]


def test_counters_and_catch_all() -> None:
    numbers = codec.attribute(codec.NFTA_COUNTER_BYTES, (300).to_bytes(8, "big"))
    numbers += codec.attribute(codec.NFTA_COUNTER_PACKETS, (5).to_bytes(8, "big"))
    counter = codec.string(codec.NFTA_EXPR_NAME, "counter") + codec.nested(codec.NFTA_EXPR_DATA, numbers)
    quota = codec.string(codec.NFTA_EXPR_NAME, "quota")
    key = codec.nested(codec.NFTA_SET_ELEM_KEY, codec.attribute(codec.NFTA_DATA_VALUE, bytes(4)))
    alone = codec.nested(codec.NFTA_SET_ELEM_EXPR, counter)
    several = codec.nested(
        codec.NFTA_SET_ELEM_EXPRESSIONS,
        codec.nested(codec.NFTA_LIST_ELEM, counter),
        codec.nested(codec.NFTA_LIST_ELEM, quota),
    )
    catch_all = codec.attribute(codec.NFTA_SET_ELEM_FLAGS, codec.NFT_SET_ELEM_CATCHALL.to_bytes(4, "big"))
    for expressions in (alone, several):
        listed = [codec.nested(codec.NFTA_LIST_ELEM, key, expressions), codec.nested(codec.NFTA_LIST_ELEM, catch_all)]
        (entry,) = codec.entries(payloads(listed), 4, interval=False)
        assert (entry.packets, entry.bytes) == (5, 300)


def test_a_key_of_another_width_and_an_element_without_a_key_are_faults() -> None:
    with pytest.raises(BadMessageError, match="16 bytes in a set of 4-byte keys"):
        codec.entries(payloads([codec.list_element(1, 16)]), 4, interval=False)
    with pytest.raises(BadMessageError, match="without a key"):
        codec.entries(payloads([codec.nested(codec.NFTA_LIST_ELEM)]), 4, interval=False)


def test_an_error_with_the_kernels_words() -> None:
    words = codec.string(codec.NLMSGERR_ATTR_MSG, "no such set")
    head = (-errno.ENOENT).to_bytes(4, "little", signed=True) + (20).to_bytes(4, "little") + bytes(12)
    capped = Message(codec.NLMSG_ERROR, codec.NLM_F_CAPPED | codec.NLM_F_ACK_TLVS, 1, head + words)
    whole = Message(codec.NLMSG_ERROR, codec.NLM_F_ACK_TLVS, 1, head + bytes(4) + words)
    for answer in (capped, whole):
        assert codec.acknowledgement(answer) == codec.Ack(errno.ENOENT, "no such set")
    assert codec.acknowledgement(Message(codec.NLMSG_DONE, 0, 1, b"")) == codec.Ack(0, "")


_KINDS = st.integers(0, 12) | st.sampled_from([0x8001, 0x8003, 0xFFFF])
_TREES: st.SearchStrategy[bytes] = st.recursive(
    st.binary(max_size=20),
    lambda inner: st.lists(st.builds(codec.attribute, _KINDS, inner), max_size=4).map(b"".join),
    max_leaves=12,
)


@given(st.binary(max_size=80) | _TREES, st.sampled_from([2, 4, 16]), st.booleans())
def test_any_bytes_are_read_or_are_a_bad_message(data: bytes, width: int, interval: bool) -> None:
    lists = codec.nested(codec.NFTA_SET_ELEM_LIST_ELEMENTS, codec.nested(codec.NFTA_LIST_ELEM, data))
    for payload in (data, codec.general() + lists):
        try:
            entries = codec.entries([payload], width, interval)
        except BadMessageError:
            continue
        assert all(0 <= e.first <= e.last < 1 << 8 * width for e in entries)


@given(st.binary(max_size=100), st.integers(0, 0x3FF))
def test_any_datagram_is_read_or_is_a_bad_message(data: bytes, flags: int) -> None:
    try:
        for message in codec.messages(data):
            codec.acknowledgement(message)
    except BadMessageError:
        pass
    try:
        ack = codec.acknowledgement(Message(codec.NLMSG_ERROR, flags, 1, data))
    except BadMessageError:
        return
    assert ack.errno >= 0
    assert ack.words.isascii()


@given(
    st.lists(st.builds(codec.list_element, st.integers(0, 2**32 - 1), st.just(4), st.just(0)), min_size=1, max_size=3)
)
def test_a_cut_datagram_is_a_bad_message_or_has_fewer_messages(elements: list[bytes]) -> None:
    made = [request for request, _ in requests(elements, limit=0)]
    datagram = codec.batch(made, 1)
    for length in range(len(datagram)):
        try:
            assert len(list(codec.messages(datagram[:length]))) < len(made) + 2
        except BadMessageError:
            continue
