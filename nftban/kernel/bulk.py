"""Many elements of one set at once: list elements written and read through numpy arrays instead of one by one.

Takes Element records, or the list elements of the kernel's messages; gives the same bytes and entries as codec.py,
which it follows to the byte, about ten times as fast.  Made for restoring, feeds and checks of big sets; below FEWEST
elements codec.py is as good.
Guarantees: whatever the bytes, reading returns or raises BadMessageError, as codec.py does.
Does not: own a socket, cut lists to the 64 KiB a message may hold (netlink.py does).
Cost: importing numpy takes 80 ms and 16 MB once, so netlink.py imports this module when it first needs it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from nftban.kernel import codec
from nftban.kernel.codec import BadMessageError
from nftban.kernel.columns import Columns, RangeColumns
from nftban.kernel.plan import TOLERANCE
from nftban.ranges import Keys as Numbers
from nftban.ranges import moved
from nftban.records import Element

Octets = NDArray[np.uint8]

_LENGTH = struct.Struct("=H")
# Where list_element() has the key, and how far behind the key the timeout and the expiration stand.
_KEY, _TIMEOUT, _EXPIRATION = 12, 4, 16
# What differs between elements of one shape, by attribute: everything else must be equal.
_FREE = frozenset(
    (codec.NFTA_SET_ELEM_TIMEOUT, codec.NFTA_SET_ELEM_EXPIRATION, codec.NFTA_SET_ELEM_EXPR,
     codec.NFTA_SET_ELEM_EXPRESSIONS)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Keys:
    """Elements as the kernel listed them, in its order.

    key: one row of `width` bytes each; is_end: does it end an interval; expires_in: seconds, inf where it never
    times out.
    """

    key: Octets
    is_end: NDArray[np.bool_]
    expires_in: NDArray[np.float64]

    def numbers(self) -> list[int]:
        return _numbers(self.key)

    def other_ends(self, elements: Sequence[Element], now: float, step: int) -> list[Element]:
        """The elements whose `until` is not what every step-th of these says; as many as there are of both."""
        waits = self.expires_in[::step]
        ends = _ends(elements[: len(waits)]) - now
        with np.errstate(invalid="ignore"):
            same = (ends == waits) | (np.abs(ends - waits) <= TOLERANCE)
        return [elements[i] for i in np.flatnonzero(~same).tolist()]


def _ends(elements: Sequence[Element]) -> NDArray[np.float64]:
    if isinstance(elements, RangeColumns):
        return np.full(len(elements), elements.end)
    until = elements.ends if isinstance(elements, Columns) else [inf if e.until is None else e.until for e in elements]
    return np.array(until, np.float64)


def octets(numbers: Sequence[int] | Numbers, width: int) -> Octets:
    """Keys as rows of `width` bytes in network order."""
    if isinstance(numbers, np.ndarray) and width == 16:
        return np.ascontiguousarray(numbers).view(np.uint8).reshape(-1, 16)
    if width == 4:
        return np.array(numbers, np.uint32).astype(">u4").view(np.uint8).reshape(-1, 4)
    return np.frombuffer(b"".join([n.to_bytes(width, "big") for n in numbers]), np.uint8).reshape(-1, width)


def element_list(elements: Sequence[Element], width: int, interval: bool, now: float | None) -> bytes:
    """The list elements of one set; now None: without timeouts, as for a deletion."""
    if isinstance(elements, Columns):
        keys, ends = octets(elements.keys, width), np.array(elements.ends, np.float64)
        if now is None or not len(ends):
            return _rows(keys, None, None, width)
        timed = np.isfinite(ends)
        if timed.all():
            return _rows(keys, None, ends - now, width)
        return _rows(keys[~timed], None, None, width) + _rows(keys[timed], None, ends[timed] - now, width)
    if isinstance(elements, RangeColumns):
        return _spans(elements, width, now)
    parts: list[tuple[float | None, Sequence[Element]]] = [(None, elements)]
    if now is not None:
        timed_ones = [e for e in elements if e.until is not None]
        lasting = [e for e in elements if e.until is None] if len(timed_ones) < len(elements) else []
        parts = [(None, lasting), (now, timed_ones)]
    return b"".join(_list(several, width, interval, moment) for moment, several in parts if several)


def _spans(ranges: RangeColumns, width: int, now: float | None) -> bytes:
    spans = ranges.spans
    topmost = len(spans) > 0 and ranges[-1].last == (1 << 8 * width) - 1
    bounded = spans[:-1] if topmost else spans
    waits = None if now is None else np.full(len(bounded), ranges.end - now)
    rows = _rows(octets(bounded.first, width), octets(moved(bounded.last, 1), width), waits, width)
    return rows + (_list([ranges[-1]], width, True, now) if topmost else b"")


def _list(elements: Sequence[Element], width: int, interval: bool, now: float | None) -> bytes:
    """The same; now None: none of the elements times out."""
    highest = (1 << 8 * width) - 1
    topmost = b""
    if interval:
        # An interval up to the highest key has no end element: another shape.
        top = [e for e in elements if e.last >= highest]
        if top:
            elements = [e for e in elements if e.last < highest]
            waits = [None if now is None or e.until is None else round((e.until - now) * 1000) for e in top]
            topmost = b"".join(codec.element_bytes(e, width, True, w) for e, w in zip(top, waits, strict=True))
    firsts = octets([e.first for e in elements], width)
    behind = octets([e.last + 1 for e in elements], width) if interval else None
    left = None if now is None else np.array([e.until for e in elements], np.float64) - now
    return _rows(firsts, behind, left, width) + topmost


def _rows(keys: Octets, behind: Octets | None, waits: NDArray[np.float64] | None, width: int) -> bytes:
    """behind: the key behind the last one of each interval, None in a hash set; waits: seconds, None: without
    timeouts."""
    start = np.frombuffer(codec.list_element(0, width, timeout_ms=None if waits is None else 1), np.uint8)
    end = np.frombuffer(
        b"" if behind is None else codec.list_element(0, width, codec.NFT_SET_ELEM_INTERVAL_END), np.uint8
    )
    rows = np.empty((len(keys), len(start) + len(end)), np.uint8)
    rows[:] = np.concatenate((start, end))
    rows[:, _KEY : _KEY + width] = keys
    if behind is not None:
        place = len(start) + _KEY
        rows[:, place : place + width] = behind
    if waits is not None:
        waits_ms = np.rint((waits * 1000).clip(1, float(codec.LONGEST_TIMEOUT_MS - 4096))).astype(">u8")
        for place in (_KEY + width + _TIMEOUT, _KEY + width + _EXPIRATION):
            rows[:, place : place + 8] = waits_ms.view(np.uint8).reshape(-1, 8)
    return rows.tobytes()


def read(elements: bytes, width: int) -> Keys:
    """List elements (codec.list_elements) of a set of `width`-byte keys, catch-all elements left out."""
    offsets, sizes = _boundaries(elements)
    count = len(offsets)
    key = np.zeros((count, width), np.uint8)
    is_end = np.zeros(count, np.bool_)
    expires_in = np.full(count, inf)
    known = np.zeros(count, np.bool_)
    every = np.frombuffer(elements, np.uint8)
    for size in np.unique(sizes):
        left = np.flatnonzero(sizes == size)
        rows = every[offsets[left][:, None] + np.arange(size)]
        while len(left):
            shape = _shape(rows[0].tobytes(), width)
            same = (rows[:, shape.fixed] == rows[0, shape.fixed]).all(axis=1)
            places = left[same]
            if shape.key is not None:
                key[places] = rows[same, shape.key : shape.key + width]
                is_end[places] = shape.is_end
                known[places] = True
            if shape.expiration is not None:
                value = np.ascontiguousarray(rows[same, shape.expiration : shape.expiration + 8])
                expires_in[places] = value.view(">u8")[:, 0] / 1000
            left, rows = left[~same], rows[~same]
    return Keys(key[known], is_end[known], expires_in[known])


def entries(elements: bytes, width: int, interval: bool) -> list[codec.Entry]:
    """The same as codec.entries() gives, ascending, but without the counters' packets and bytes."""
    found = read(elements, width)
    numbers, waits = found.numbers(), found.expires_in.tolist()
    made = [codec.Entry(n, n, None if w == inf else w) for n, w in zip(numbers, waits, strict=True)]
    return codec.arranged(list(zip(numbers, found.is_end.tolist(), made, strict=True)), width, interval)


def _numbers(rows: Octets) -> list[int]:
    if rows.shape[1] == 4:
        numbers: list[int] = np.ascontiguousarray(rows).view(">u4")[:, 0].tolist()
        return numbers
    whole, width = rows.tobytes(), rows.shape[1]
    return [int.from_bytes(whole[i : i + width], "big") for i in range(0, len(whole), width)]


def _boundaries(elements: bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each attribute of the list begins, and its length with its header."""
    if len(elements) >= 4:
        # Nearly always all are of one size.
        size = _LENGTH.unpack_from(elements)[0]
        step = max(size + 3 & ~3, 4)
        if size >= 4 and len(elements) % step == 0:
            sizes = np.frombuffer(elements, np.uint16)[:: step // 2]
            if (sizes == size).all():
                return np.arange(0, len(elements), step), np.full(len(sizes), size)
    offsets, lengths = [], []
    offset, whole = 0, len(elements)
    unpack = _LENGTH.unpack_from
    while offset < whole:
        if whole - offset < 4:
            raise BadMessageError(f"{whole - offset} bytes are too few for an attribute")
        (size,) = unpack(elements, offset)
        if not 4 <= size <= whole - offset:
            raise BadMessageError(f"an attribute of {size} bytes where {whole - offset} are left")
        offsets.append(offset)
        lengths.append(size)
        offset += size + 3 & ~3
    return np.array(offsets, np.intp), np.array(lengths, np.intp)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one list element is built: where its key and its expiration stand, and which bytes every element of the
    same shape has in common."""

    key: int | None
    expiration: int | None
    is_end: bool
    fixed: NDArray[np.intp]


def _shape(element: bytes, width: int) -> _Shape:
    expiration, flags = None, 0
    key = None
    free = np.zeros(len(element), np.bool_)
    for kind, start, end in _attributes(element, 4, len(element)):
        if kind == codec.NFTA_SET_ELEM_KEY:
            for sub, sub_start, sub_end in _attributes(element, start, end):
                if sub == codec.NFTA_DATA_VALUE:
                    if sub_end - sub_start != width:
                        raise BadMessageError(f"a key of {sub_end - sub_start} bytes in a set of {width}-byte keys")
                    key = sub_start
                    free[sub_start:sub_end] = True
        elif kind == codec.NFTA_SET_ELEM_FLAGS:
            flags = int.from_bytes(element[start:end], "big")
        elif kind in _FREE:
            free[start:end] = True
        if kind == codec.NFTA_SET_ELEM_EXPIRATION:
            if end - start != 8:
                raise BadMessageError(f"an expiration of {end - start} bytes")
            expiration = start
    if key is None and not flags & codec.NFT_SET_ELEM_CATCHALL:
        raise BadMessageError("an element without a key")
    return _Shape(key, expiration, bool(flags & codec.NFT_SET_ELEM_INTERVAL_END), np.flatnonzero(~free))


def _attributes(element: bytes, start: int, end: int) -> list[tuple[int, int, int]]:
    """Type, first byte of the value and the byte behind it, of each attribute between start and end."""
    found = []
    for kind, value in codec.attributes(element[start:end]):
        start += 4
        found.append((kind, start, start + len(value)))
        start += len(value) + 3 & ~3
    return found
