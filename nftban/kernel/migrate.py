"""From the table that is there to the table that should be, in one transaction and without a gap.

Takes a Layout, the Frame that the kernel lists under its name, and the elements of sets that must be made anew; gives
what differs, in words, and the requests that end it.
Guarantees: sets that are as they should be are not touched; a set of another definition is replaced by one that holds
the same elements with the time they had left, so far as they fit its keys; the name is ours: chains, sets and objects
in the table that the layout does not name are removed.  All of it takes effect at once, and a packet sees the rules
and sets before it or after it.
Does not: own a socket; keep the counters of elements whose set is replaced; mind flowtables, which do nothing without
a rule.
Source: linux/netfilter/nf_tables.h, whose names the attributes bear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELCHAIN,
    NFT_MSG_DELOBJ,
    NFT_MSG_DELRULE,
    NFT_MSG_DELSET,
)

from nftban.kernel import codec, objects
from nftban.kernel.codec import NFT_MSG_NEWSETELEM, Entry, Request
from nftban.kernel.layout import Kind, Layout, SetSpec, network_mask
from nftban.kernel.objects import NFTA_OBJ_NAME, NFTA_OBJ_TABLE, NFTA_OBJ_TYPE, Frame
from nftban.kernel.transactions import ELEMENT_BYTES, Batch, stands
from nftban.records import Element

NFT_TABLE_F_DORMANT = 0x1
NFTA_SET_NAME, NFTA_CHAIN_NAME = 2, 3

# By set, the elements that are kept.
Kept = dict[SetSpec, list[Element]]

_CHAIN_COMPARED = ("NFTA_CHAIN_HOOK", "NFTA_CHAIN_TYPE", "NFTA_CHAIN_POLICY")
_SET_COMPARED = (
    "NFTA_SET_FLAGS",
    "NFTA_SET_KEY_TYPE",
    "NFTA_SET_KEY_LEN",
    "NFTA_SET_DESC",
    "NFTA_SET_GC_INTERVAL",
    "NFTA_SET_TIMEOUT",
    "NFTA_SET_EXPR",
    "NFTA_SET_EXPRESSIONS",
)


def differences(layout: Layout, frame: Frame, ports: Mapping[str, set[int]]) -> list[str]:
    """What the frame lacks, has besides, or has otherwise than the layout; in words.

    ports: what the sets of ports hold, by the name of the set.
    """
    if frame.table is None:
        return [f"there is no table inet {layout.table}"]
    want = objects.intended(layout)
    words = ["the table is dormant"] if frame.table.get("NFTA_TABLE_FLAGS", 0) & NFT_TABLE_F_DORMANT else []
    words += _compared("chain", want.chains, frame.chains, _CHAIN_COMPARED)
    words += _compared("set", want.sets, frame.sets, _SET_COMPARED)
    words += [f"object {name} is not ours" for _, name in frame.objects]
    for scope in layout.scopes:
        found = ports.get(scope.port_set.name)
        if scope.port_set.name in frame.sets and found is not None and found != set(scope.ports):
            words.append(f"set {scope.port_set.name} holds the ports {sorted(found)}")
    return words + [
        f"the rules of chain {chain} are not ours" for chain in want.chains
        if chain in frame.chains and frame.rules.get(chain, []) != want.rules[chain]
    ]  # fmt: skip


def replaced_sets(layout: Layout, frame: Frame) -> dict[SetSpec, bool]:
    """The sets of addresses that are there in another definition but with our type of key, so that their elements
    can be kept; for each whether it is now an interval set."""
    want = objects.intended(layout)
    found = {}
    for spec in layout.address_sets.values():
        have = frame.sets.get(spec.name)
        if have and _differs(want.sets[spec.name], have, _SET_COMPARED) and _same_keys(want.sets[spec.name], have):
            found[spec] = "NFT_SET_INTERVAL" in have.get("NFTA_SET_FLAGS", ())
    return found


def kept(spec: SetSpec, entries: Iterable[Entry], now: float) -> list[Element]:
    """What entries of a set of this name, listed at `now`, are in the new one.

    now: seconds of any clock, the same that requests() is given.  Left out is what the new set has no key for (a range
    in a set of single addresses or networks) or no room.
    """
    elements: list[Element] = []
    for entry in entries:
        first, last = entry.first, entry.last
        if spec.kind is Kind.NETWORK:
            mask = network_mask(spec.family)
            whole = first == first & mask and last in (first, first | ~mask & ((1 << 8 * spec.width) - 1))
            last = first if whole else last
        if spec.interval or first == last:
            until = None if entry.expires_in is None or not spec.timed else now + entry.expires_in
            elements.append(Element(spec.name, first, last, until))
    return elements[: spec.size]


def requests(layout: Layout, frame: Frame, elements: Kept, now: float) -> list[Request]:
    """Everything that turns the frame into the layout, to be sent as one transaction; elements: for replaced sets."""
    most = codec.LIST_BYTES // ELEMENT_BYTES
    refill: list[Request] = []
    for spec, items in elements.items():
        standing = [e for e in items if stands(e, now)]
        batches = (Batch(NFT_MSG_NEWSETELEM, spec, standing[i : i + most]) for i in range(0, len(standing), most))
        refill += (batch.request(layout.table, now) for batch in batches)
    want = objects.intended(layout).sets
    whole = [name for name in want if name in frame.sets and not _differs(want[name], frame.sets[name], _SET_COMPARED)]
    table, *rest = objects.create_requests(layout, refill, whole)
    return [table, *(_clearing(layout, frame) if frame.table is not None else []), *rest]


def _clearing(layout: Layout, frame: Frame) -> list[Request]:
    """Deletes what is not as it should be: first every rule, because rules hold sets and chains; then sets, because
    maps hold chains and objects."""
    want = objects.intended(layout)
    removed = [_deletion(NFT_MSG_DELRULE, layout.table)]
    for kind, ours, have, keys in (
        (NFT_MSG_DELSET, want.sets, frame.sets, _SET_COMPARED),
        (NFT_MSG_DELCHAIN, want.chains, frame.chains, _CHAIN_COMPARED),
    ):
        # A chain's name is its third attribute, a set's the second.
        place = NFTA_CHAIN_NAME if kind == NFT_MSG_DELCHAIN else NFTA_SET_NAME
        for name in have:
            if name not in ours or _differs(ours[name], have[name], keys):
                removed.append(_deletion(kind, layout.table, codec.string(place, name)))
    for kind_of, name in frame.objects:
        attributes = codec.string(NFTA_OBJ_NAME, name) + codec.attribute(NFTA_OBJ_TYPE, kind_of)
        removed.append(_deletion(NFT_MSG_DELOBJ, layout.table, attributes))
    return removed


def _deletion(kind: int, table: str, attributes: bytes = b"") -> Request:
    # The table is the first attribute of all of these messages.
    return Request(kind, 0, codec.general() + codec.string(NFTA_OBJ_TABLE, table) + attributes)


def _same_keys(want: Mapping[str, Any], have: Mapping[str, Any]) -> bool:
    is_map = {"NFT_SET_MAP", "NFT_SET_OBJECT"} & set(have.get("NFTA_SET_FLAGS", ()))
    return not is_map and not _differs(want, have, ("NFTA_SET_KEY_TYPE", "NFTA_SET_KEY_LEN"))


def _differs(want: Mapping[str, Any], have: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    return [
        f"{key} is {have.get(key)}, not {want.get(key)}"
        for key in keys
        if have.get(key) != want.get(key) and not (key == "NFTA_SET_DESC" and _is_larger(have.get(key), want.get(key)))
    ]


def _is_larger(have: Mapping[str, Any] | None, want: Mapping[str, Any] | None) -> bool:
    """A full set is enlarged."""
    if not have or not want:
        return False
    return (
        have.keys() == want.keys() == {"NFTA_SET_DESC_SIZE"} and have["NFTA_SET_DESC_SIZE"] > want["NFTA_SET_DESC_SIZE"]
    )


def _compared(
    what: str, want: Mapping[str, Mapping[str, Any]], have: Mapping[str, Mapping[str, Any]], keys: Iterable[str]
) -> list[str]:
    words = []
    for name, attributes in want.items():
        if name not in have:
            words.append(f"{what} {name} is missing")
        else:
            words += [f"{what} {name} differs: {difference}" for difference in _differs(attributes, have[name], keys)]
    return words + [f"{what} {name} is not ours" for name in have if name not in want]
