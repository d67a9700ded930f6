"""Table, chains, sets and rules of a layout as nf_tables messages, and back.

Takes a Layout; gives the requests that make or complete it in one transaction, and, from what the kernel lists, what
is not as the layout says.  The messages are encoded and decoded by pyroute2's classes for nf_tables, ours and the
kernel's alike, so that the two can be compared.
Guarantees: the requests may be sent again at any time and lose no element of an address set; chains of ours and sets
of ports are written anew.  Does not: own a socket; touch sets or chains of the table that the layout does not name.
Source: linux/netfilter/nf_tables.h, whose names the attributes bear; `nft --debug=netlink` for what nft(8) sends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELRULE,
    NFT_MSG_DELTABLE,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSET,
    NFT_MSG_GETTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWTABLE,
    nft_chain_msg,
    nft_rule_msg,
    nft_set_msg,
    nft_table_msg,
)

from nftban.kernel import codec
from nftban.kernel.codec import NFPROTO_INET, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, Request
from nftban.kernel.layout import BASE_CHAIN, GC_INTERVAL_MS, PRIORITY_RAW, Kind, Layout, Rule, SetSpec, network_mask

NLMSGHDR_BYTES = 16
NF_INET_PRE_ROUTING = 0
NF_DROP, NF_ACCEPT, NFT_JUMP = 0, 1, -3
NFT_REG_VERDICT, NFT_REG_1 = 0, 1
NFT_META_NFPROTO, NFT_META_L4PROTO = 15, 16
NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER = 1, 2
NFT_CMP_EQ = 0
NFT_BITWISE_BOOL = 0
NFT_TABLE_F_DORMANT = 0x1
IPPROTO_TCP = 6
# nft's numbers of the key types (`nft describe`), for its listing only: the kernel stores them unread.
KEY_TYPES = {"ipv4_addr": 7, "ipv6_addr": 8, "inet_service": 13}
# libnftables' BYTEORDER_BIG_ENDIAN: without it nft would list the keys with their bytes reversed.
BYTEORDER_BIG_ENDIAN = 2
# Offset of the source address in the network header, of the destination port in TCP's.
SOURCE_OFFSET = {4: 12, 6: 8}
PORT_OFFSET = 2
NFPROTO = {4: 2, 6: 10}

Attributes = list[tuple[str, Any]]


def create_requests(layout: Layout) -> list[Request]:
    """Everything of the layout, to be sent as one transaction.

    nf_tables takes a table, chain or set that is there already as made (without NLM_F_EXCL); rules would be
    doubled, so our chains are emptied first.
    """
    table = layout.table
    # Flags 0 also wake a table that somebody has made dormant.
    attributes: Attributes = [("NFTA_TABLE_NAME", table), ("NFTA_TABLE_FLAGS", 0)]
    requests = [_request(NFT_MSG_NEWTABLE, NLM_F_CREATE, nft_table_msg, attributes)]
    requests += [
        _request(NFT_MSG_NEWSET, NLM_F_CREATE, nft_set_msg, _set_attributes(table, spec, i))
        for i, spec in enumerate(layout.sets, 1)
    ]
    requests += [
        _request(NFT_MSG_NEWCHAIN, NLM_F_CREATE, nft_chain_msg, _chain_attributes(table, chain))
        for chain in layout.chains
    ]
    requests += [
        _request(NFT_MSG_DELRULE, 0, nft_rule_msg, [("NFTA_RULE_TABLE", table), ("NFTA_RULE_CHAIN", chain)])
        for chain in layout.chains
    ]
    for scope in layout.scopes:
        if scope.ports:
            requests += _port_requests(table, scope.port_set, scope.ports)
    requests += [
        _request(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, nft_rule_msg, _rule_attributes(table, rule))
        for rule in layout.rules
    ]
    return requests


def _port_requests(table: str, spec: SetSpec, ports: Iterable[int]) -> list[Request]:
    """Empties a set of ports and fills it anew."""
    elements = [codec.list_element(port, spec.width) for port in ports]
    everything, _ = next(codec.element_requests(codec.NFT_MSG_NEWSETELEM, NLM_F_CREATE, table, spec.name, elements))
    return [codec.flush_request(table, spec.name), everything]


def remove_request(layout: Layout) -> Request:
    return _request(NFT_MSG_DELTABLE, 0, nft_table_msg, [("NFTA_TABLE_NAME", layout.table)])


def list_requests(layout: Layout) -> tuple[Request, Request, Request, Request]:
    """Listings of all tables, and of this table's chains (or those of all tables), sets and rules."""
    return (
        _request(NFT_MSG_GETTABLE, NLM_F_DUMP, nft_table_msg, []),
        _request(NFT_MSG_GETCHAIN, NLM_F_DUMP, nft_chain_msg, [("NFTA_CHAIN_TABLE", layout.table)]),
        _request(NFT_MSG_GETSET, NLM_F_DUMP, nft_set_msg, [("NFTA_SET_TABLE", layout.table)]),
        _request(NFT_MSG_GETRULE, NLM_F_DUMP, nft_rule_msg, [("NFTA_RULE_TABLE", layout.table)]),
    )


def differences(
    layout: Layout,
    ports: Mapping[str, set[int]],
    tables: Iterable[bytes],
    chains: Iterable[bytes],
    sets: Iterable[bytes],
    rules: Iterable[bytes],
) -> list[str]:
    """What the payloads of these listings lack, or have otherwise than the layout; in words.

    ports: what the sets of ports hold, by the name of the set.
    """
    name = layout.table
    table = next((t for t in (_decoded(nft_table_msg, p) for p in tables) if t["NFTA_TABLE_NAME"] == name), None)
    if table is None:
        return [f"there is no table inet {name}"]
    words = ["the table is dormant"] if table.get("NFTA_TABLE_FLAGS", 0) & NFT_TABLE_F_DORMANT else []
    have = {c["NFTA_CHAIN_NAME"]: c for p in chains if (c := _decoded(nft_chain_msg, p))["NFTA_CHAIN_TABLE"] == name}
    for chain in layout.chains:
        want = _plain(nft_chain_msg, _chain_attributes(name, chain))
        words += _compared(f"chain {chain}", want, have.get(chain), _CHAIN_COMPARED)
    have = {s["NFTA_SET_NAME"]: s for p in sets if (s := _decoded(nft_set_msg, p))["NFTA_SET_TABLE"] == name}
    for spec in layout.sets:
        want = _plain(nft_set_msg, _set_attributes(name, spec, 0))
        words += _compared(f"set {spec.name}", want, have.get(spec.name), _SET_COMPARED)
    for scope in layout.scopes:
        found = ports.get(scope.port_set.name)
        if scope.port_set.name in have and found is not None and found != set(scope.ports):
            words.append(f"set {scope.port_set.name} holds the ports {sorted(found)}")
    return words + _foreign_rules(layout, rules)


def _foreign_rules(layout: Layout, rules: Iterable[bytes]) -> list[str]:
    have: dict[str, list[Any]] = {}
    for rule in (_decoded(nft_rule_msg, p) for p in rules):
        if rule["NFTA_RULE_TABLE"] == layout.table:
            have.setdefault(rule["NFTA_RULE_CHAIN"], []).append(rule["NFTA_RULE_EXPRESSIONS"])
    want: dict[str, list[Any]] = {chain: [] for chain in layout.chains}
    for ours in layout.rules:
        plain = _plain(nft_rule_msg, _rule_attributes(layout.table, ours))
        want[ours.chain].append(plain["NFTA_RULE_EXPRESSIONS"])
    return [f"the rules of chain {chain} are not ours" for chain in want if have.get(chain, []) != want[chain]]


_CHAIN_COMPARED = ("NFTA_CHAIN_HOOK", "NFTA_CHAIN_TYPE", "NFTA_CHAIN_POLICY")
_SET_COMPARED = (
    "NFTA_SET_FLAGS",
    "NFTA_SET_KEY_TYPE",
    "NFTA_SET_KEY_LEN",
    "NFTA_SET_DESC",
    "NFTA_SET_GC_INTERVAL",
    "NFTA_SET_TIMEOUT",
    "NFTA_SET_EXPR",
)


def _compared(what: str, want: Mapping[str, Any], have: Mapping[str, Any] | None, keys: Iterable[str]) -> list[str]:
    if have is None:
        return [f"{what} is missing"]
    return [
        f"{what} differs: {key} is {have.get(key)}, not {want.get(key)}"
        for key in keys
        if have.get(key) != want.get(key)
    ]


def _set_attributes(table: str, spec: SetSpec, number: int) -> Attributes:
    flags = {flag for flag, is_set in (("NFT_SET_INTERVAL", spec.interval), ("NFT_SET_TIMEOUT", spec.bans)) if is_set}
    attributes: Attributes = [
        ("NFTA_SET_TABLE", table),
        ("NFTA_SET_NAME", spec.name),
        ("NFTA_SET_FLAGS", flags),
        ("NFTA_SET_KEY_TYPE", KEY_TYPES[spec.key_type]),
        ("NFTA_SET_KEY_LEN", spec.width),
        ("NFTA_SET_ID", number),
        (
            "NFTA_SET_USERDATA",
            [("NFTNL_UDATA_SET_KEYBYTEORDER", BYTEORDER_BIG_ENDIAN.to_bytes(4, sys.byteorder))],
        ),
    ]
    if spec.size is not None:
        attributes.append(("NFTA_SET_DESC", {"attrs": [("NFTA_SET_DESC_SIZE", spec.size)]}))
    if spec.bans:
        attributes.append(("NFTA_SET_GC_INTERVAL", GC_INTERVAL_MS))
        attributes.append(("NFTA_SET_EXPR", _expression("counter")))
    return attributes


def _chain_attributes(table: str, chain: str) -> Attributes:
    attributes: Attributes = [("NFTA_CHAIN_TABLE", table), ("NFTA_CHAIN_NAME", chain)]
    if chain == BASE_CHAIN:
        hook = [("NFTA_HOOK_HOOKNUM", NF_INET_PRE_ROUTING), ("NFTA_HOOK_PRIORITY", PRIORITY_RAW)]
        attributes += [
            ("NFTA_CHAIN_TYPE", "filter"),
            ("NFTA_CHAIN_HOOK", {"attrs": hook}),
            ("NFTA_CHAIN_POLICY", NF_ACCEPT),
        ]
    return attributes


def _rule_attributes(table: str, rule: Rule) -> Attributes:
    spec = rule.match
    if spec.kind is Kind.PORTS:
        meta, value = NFT_META_L4PROTO, IPPROTO_TCP
        base, offset = NFT_PAYLOAD_TRANSPORT_HEADER, PORT_OFFSET
    else:
        meta, value = NFT_META_NFPROTO, NFPROTO[spec.family]
        base, offset = NFT_PAYLOAD_NETWORK_HEADER, SOURCE_OFFSET[spec.family]
    expressions = [
        _expression("meta", KEY=meta, DREG=NFT_REG_1),
        _expression("cmp", SREG=NFT_REG_1, OP=NFT_CMP_EQ, DATA=_value(bytes((value,)))),
        _expression("payload", DREG=NFT_REG_1, BASE=base, OFFSET=offset, LEN=spec.width),
    ]
    if spec.kind is Kind.NETWORK:
        mask = network_mask(spec.family).to_bytes(spec.width, "big")
        expressions.append(
            _expression(
                "bitwise",
                SREG=NFT_REG_1,
                DREG=NFT_REG_1,
                OP=NFT_BITWISE_BOOL,
                LEN=spec.width,
                MASK=_value(mask),
                XOR=_value(bytes(spec.width)),
            )
        )
    expressions.append(_expression("lookup", SREG=NFT_REG_1, SET=spec.name))
    expressions.append(_expression("immediate", DREG=NFT_REG_VERDICT, DATA=_verdict(rule.verdict)))
    return [("NFTA_RULE_TABLE", table), ("NFTA_RULE_CHAIN", rule.chain), ("NFTA_RULE_EXPRESSIONS", expressions)]


def _expression(name: str, **attributes: Any) -> dict[str, Any]:
    data = [(f"NFTA_{name.upper()}_{key}", value) for key, value in attributes.items()]
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": data})]}


def _value(data: bytes) -> dict[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", data)]}


def _verdict(verdict: str) -> dict[str, Any]:
    code = {"accept": NF_ACCEPT, "drop": NF_DROP}.get(verdict, NFT_JUMP)
    attributes: Attributes = [("NFTA_VERDICT_CODE", code)]
    if code == NFT_JUMP:
        attributes.append(("NFTA_VERDICT_CHAIN", verdict))
    return {"attrs": [("NFTA_DATA_VERDICT", {"attrs": attributes})]}


def _encoded(message_class: Any, attributes: Attributes) -> bytes:
    message = message_class()
    message["nfgen_family"] = NFPROTO_INET
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data)


def _request(kind: int, flags: int, message_class: Any, attributes: Attributes) -> Request:
    return Request(kind, flags, _encoded(message_class, attributes)[NLMSGHDR_BYTES:])


def _plain(message_class: Any, attributes: Attributes) -> dict[str, Any]:
    """The attributes as they look after a journey through the encoder and the decoder."""
    return _decoded(message_class, _encoded(message_class, attributes)[NLMSGHDR_BYTES:])


def _decoded(message_class: Any, payload: bytes) -> dict[str, Any]:
    message = message_class((NLMSGHDR_BYTES + len(payload)).to_bytes(4, sys.byteorder) + bytes(12) + payload)
    message.decode()
    plain: dict[str, Any] = _simplified(message)
    if "NFTA_SET_EXPR" in plain:
        # A set's own counter is the pattern for those of its elements: its numbers say nothing.
        plain["NFTA_SET_EXPR"] = plain["NFTA_SET_EXPR"].get("NFTA_EXPR_NAME")
    return plain


def _simplified(value: Any) -> Any:
    """Dictionaries and lists instead of pyroute2's objects, without what is empty (flags of which none is set)."""
    if isinstance(value, list):
        return [_simplified(item) for item in value]
    if isinstance(value, dict) and "attrs" in value:
        pairs = ((name, _simplified(item)) for name, item in value["attrs"])
        return {name: item for name, item in pairs if item not in (None, frozenset(), {})}
    return value
