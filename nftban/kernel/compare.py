"""What differs between the intent and the kernel, found without listing big sets.

Takes the desired elements; gives the Delta that plan.difference() would give.  A listing takes time that grows faster
than the set (linux/net/netfilter/nft_set_hash.c starts its walk anew for every 32 KB), so a big set is not listed:
the kernel is asked for the elements that should be there, a thousand with one message (each answer says when the
element ends), and for the number of elements it holds (NFTA_SET_COUNT, since Linux 6.16).  Only where the number is
higher than what was found, so that there is something unwanted, or where much is missing, the set is listed.
Does not see: on a kernel that does not tell the number, an unwanted element in a set of more than LISTED; elsewhere
one that hides behind elements which have just timed out (`lingering`).  The next listing shows them.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain

from nftban.kernel import Desired, codec, plan
from nftban.kernel.codec import NFT_MSG_GETSETELEM
from nftban.kernel.columns import Columns, RangeColumns
from nftban.kernel.layout import Layout, SetSpec
from nftban.kernel.wire import ATTEMPTS, NetfilterSocket, kernel_error
from nftban.records import Delta, Element

# A set of which no more is wanted is listed; that is as fast as asking for each, and shows what is unwanted.
SMALL = 500
# The same where the kernel does not say how many elements a set holds.
LISTED = 20_000
# Keys asked for at a time; each answer is a datagram in our receive buffer.
KEYS = 1_000

Listing = Callable[[float, Collection[str]], list[Element]]


class Comparison:
    """Compares one layout's sets; listed: the elements of some sets, as Kernel.present() gives them."""

    def __init__(self, socket: NetfilterSocket, layout: Layout, listed: Listing) -> None:
        self._socket = socket
        self._layout = layout
        self._listed = listed

    def counts(self) -> dict[str, int | None]:
        """How many elements each set holds: 0 where it is missing, None where the kernel does not say.

        Elements that timed out count until the kernel has collected them.
        """
        names = list(self._layout.address_sets)
        answers = self._socket.look_up([codec.set_request(self._layout.table, name) for name in names])
        pairs = zip(names, answers, strict=True)
        return {name: codec.set_count(payloads[0]) if payloads else 0 for name, payloads in pairs}

    def delta(
        self, desired: Desired, now: float, lingering: Mapping[str, int], sets: Collection[str] | None = None
    ) -> Delta:
        """lingering: by set, how many elements may have timed out since the kernel last collected such; sets: only
        these, None: all."""
        start = time.monotonic()
        add: list[Element] = []
        refresh: list[Element] = []
        fill: list[Sequence[Element]] = []
        doubtful: dict[str, Sequence[Element]] = {}
        for name, count in self.counts().items():
            if sets is not None and name not in sets:
                continue
            spec, elements = self._layout.address_sets[name], _standing(desired.get(name, ()), now)
            if count == 0:
                fill += [elements] if elements else []
                continue
            if _to_list(len(elements), count):
                doubtful[name] = elements
                continue
            missing, wrong = self._looked_up(spec, elements, now + time.monotonic() - start)
            more = _has_more(spec, elements, count, lingering.get(name, 0) - len(missing))
            if (spec.interval and missing) or more:
                doubtful[name] = elements
            else:
                add += missing
                refresh += wrong
        now += time.monotonic() - start
        rest = plan.difference(chain.from_iterable(doubtful.values()), self._listed(now, doubtful), now)
        return Delta((*add, *rest.add), rest.delete, (*refresh, *rest.refresh), tuple(fill))

    def in_doubt(self, desired: Desired, now: float, lingering: Mapping[str, int]) -> set[str]:
        """The sets that are small, or of whose number of elements alone one sees that it is wrong."""
        found = set()
        for name, count in self.counts().items():
            spec, elements = self._layout.address_sets[name], _standing(desired.get(name, ()), now)
            if _to_list(len(elements), count) or _has_more(spec, elements, count, lingering.get(name, 0)):
                found.add(name)
        return found

    def lacking(self, elements: Sequence[Element], now: float) -> Delta | None:
        """Which of these elements of one set are missing or end at another time; None where ranges are missing, so
        that their whole set has to be compared."""
        if not elements:
            return Delta()
        spec = self._layout.address_sets[elements[0].set]
        missing, wrong = self._looked_up(spec, elements, now)
        return None if spec.interval and missing else Delta(add=tuple(missing), refresh=tuple(wrong))

    def _looked_up(self, spec: SetSpec, elements: Sequence[Element], now: float) -> tuple[list[Element], list[Element]]:
        """Those that are missing, and those that are there with another end; of an interval set, if anything is
        missing, just the first, because its ranges then have to be listed anyway."""
        from nftban.kernel import bulk

        step = 2 if spec.interval else 1
        start = time.monotonic()
        missing: list[Element] = []
        wrong: list[Element] = []
        place, size = 0, KEYS // step
        for _ in range(len(elements) * ATTEMPTS):
            if place >= len(elements):
                break
            part = elements[place : place + size]
            keys = _keys(spec, part)
            asked = bulk.element_list(part, spec.width, spec.interval, None)
            answers, code = self._socket.element_answers(
                codec.list_request(NFT_MSG_GETSETELEM, 0, self._layout.table, spec.name, asked), len(keys)
            )
            found = bulk.read(codec.answered_elements(answers), spec.width)
            numbers = found.numbers()
            ends_right = not found.is_end[::step].any() and (step == 1 or found.is_end[1::2].all())
            if numbers != keys[: len(numbers)] or not ends_right:
                # A range that holds the key but begins elsewhere: as good as missing.
                return [*missing, part[0]], wrong
            wrong += found.other_ends(part, now + time.monotonic() - start, step)
            if len(numbers) == len(keys):
                place += len(part)
                continue
            place += len(numbers) // step
            if code != errno.ENOENT:
                # Our receive buffer was full before the kernel had said all.
                size = max(len(numbers) // step, 1)
                continue
            if spec.interval:
                return [*missing, part[0]], wrong
            missing.append(elements[place])
            place += 1
        else:
            raise kernel_error(errno.ENOBUFS, f"no room for the answers about set {spec.name}")
        return missing, wrong


def _standing(elements: Sequence[Element], now: float) -> Sequence[Element]:
    if isinstance(elements, Columns | RangeColumns):
        return elements.standing(now)
    return [e for e in elements if e.until is None or e.until > now]


def _to_list(wanted: int, count: int | None) -> bool:
    if count is None:
        return wanted <= LISTED
    return wanted <= SMALL or count < wanted // 2


def _has_more(spec: SetSpec, elements: Sequence[Element], count: int | None, lingering: int) -> bool:
    """Does the kernel hold more than these, and as many again as may linger?"""
    return count is not None and count > _counted(spec, elements) + lingering


def _keys(spec: SetSpec, elements: Sequence[Element]) -> list[int]:
    """What the kernel answers when asked for these: the keys, in an interval set each start and the end behind it."""
    if isinstance(elements, Columns):
        return list(elements.keys)
    if not spec.interval:
        return [e.first for e in elements]
    highest = (1 << 8 * spec.width) - 1
    return [key for e in elements for key in (e.first, e.last + 1) if key <= highest]


def _counted(spec: SetSpec, elements: Sequence[Element]) -> int:
    """How many the kernel counts when it holds these: of a range up to the highest address it has no end, and half
    a range it does not count."""
    # Ranges are ascending: only the last may be up there.
    topmost = spec.interval and bool(elements) and elements[-1].last == (1 << 8 * spec.width) - 1
    return len(elements) - topmost
