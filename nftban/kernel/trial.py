"""What this kernel can do, found out by trying it.

Takes a socket and the name of our table; tries on scratch sets there, which are gone again afterwards.  Versions say
little: distributions bring changes into old kernels.  Guarantees: neither other sets nor other tables are touched;
where anything does not go as hoped, the answer is no.
"""

from __future__ import annotations

from nftban.errors import KernelError
from nftban.kernel import codec
from nftban.kernel.codec import (
    NFT_MSG_DELSET,
    NFT_MSG_GETSETELEM,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM,
    NFT_SET_INTERVAL,
    NFT_SET_TIMEOUT,
    NLM_F_CREATE,
    Request,
)
from nftban.kernel.wire import NetfilterSocket
from nftban.records import Element

SCRATCH = {"nftban_trial_hash": NFT_SET_TIMEOUT, "nftban_trial_range": NFT_SET_TIMEOUT | NFT_SET_INTERVAL}
WIDTH = 4
HOUR_MS = 3_600_000
# Key, its timeout before and after: longer, shorter, from and to permanent.
CHANGES = (
    (10, HOUR_MS, 2 * HOUR_MS),
    (20, 2 * HOUR_MS, HOUR_MS),
    (30, HOUR_MS, None),
    (40, None, HOUR_MS),
)
TOLERANCE_MS = 60_000


def updates_in_place(socket: NetfilterSocket, table: str) -> bool:
    """Does adding an element that is there give it its new expiry, whatever the old one was?  (Linux since 6.12;
    before, the kernel ignores it, and the element must be deleted and added.)"""
    try:
        if socket.transact([request for name in SCRATCH for request in _made(table, name)]):
            return False
        try:
            refused = socket.transact([_elements(table, name, after=True) for name in SCRATCH])
            return not refused and all(_as_changed(socket, table, name) for name in SCRATCH)
        finally:
            socket.transact([_deletion(table, name) for name in SCRATCH])
    except KernelError:
        return False


def _names(table: str, name: str) -> bytes:
    return codec.general() + codec.string(codec.NFTA_SET_TABLE, table) + codec.string(codec.NFTA_SET_NAME, name)


def _made(table: str, name: str) -> list[Request]:
    numbers = {codec.NFTA_SET_FLAGS: SCRATCH[name], codec.NFTA_SET_KEY_LEN: WIDTH, codec.NFTA_SET_ID: 1}
    described = b"".join(codec.attribute(kind, number.to_bytes(4, "big")) for kind, number in numbers.items())
    return [
        Request(NFT_MSG_NEWSET, NLM_F_CREATE, _names(table, name) + described),
        _elements(table, name, after=False),
    ]


def _deletion(table: str, name: str) -> Request:
    return Request(NFT_MSG_DELSET, 0, _names(table, name))


def _elements(table: str, name: str, *, after: bool) -> Request:
    interval = bool(SCRATCH[name] & NFT_SET_INTERVAL)
    elements = (
        codec.element_bytes(Element(name, key, key + 1), WIDTH, interval, new if after else old)
        for key, old, new in CHANGES
    )
    return codec.list_request(NFT_MSG_NEWSETELEM, NLM_F_CREATE, table, name, b"".join(elements))


def _as_changed(socket: NetfilterSocket, table: str, name: str) -> bool:
    asked = [
        codec.list_request(NFT_MSG_GETSETELEM, 0, table, name, codec.list_element(key, WIDTH)) for key, _, _ in CHANGES
    ]
    for payloads, (_, _, new) in zip(socket.look_up(asked), CHANGES, strict=True):
        found = codec.entries(payloads, WIDTH, interval=False)
        if len(found) != 1:
            return False
        wait = found[0].expires_in
        if wait is None or new is None:
            if wait is not new:
                return False
        elif not 0 <= new - wait * 1000 <= TOLERANCE_MS:
            return False
    return True
