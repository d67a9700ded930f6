"""Table, chains, sets and rules of a layout as nf_tables messages, and back.

Takes a Layout; gives the requests that make or complete it in one transaction, and, from what the kernel lists, the
Frame of a table.  The messages are encoded and decoded by pyroute2's classes for nf_tables, ours and the kernel's
alike, so that `intended` and `listed` can be compared (migrate.py does).
Guarantees: the requests may be sent again at any time and lose no element of an address set; chains of ours and sets
of ports are written anew.  Does not: own a socket; touch sets or chains of the table that the layout does not name.
Source: linux/netfilter/nf_tables.h, whose names the attributes bear; `nft --debug=netlink` for what nft(8) sends.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELRULE,
    NFT_MSG_DELTABLE,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETOBJ,
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
from nftban.kernel.layout import (
    GC_INTERVAL_MS,
    INGRESS_CHAIN,
    LOG_BURST,
    PRIORITY_INGRESS,
    PRIORITY_RAW,
    Kind,
    Layout,
    Log,
    Reject,
    Rule,
    SetSpec,
    network_mask,
)

NLMSGHDR_BYTES = 16
NF_INET_PRE_ROUTING, NF_INET_INGRESS = 0, 5
NF_DROP, NF_ACCEPT, NFT_JUMP = 0, 1, -3
NFT_REG_VERDICT, NFT_REG_1 = 0, 1
NFT_META_NFPROTO, NFT_META_L4PROTO = 15, 16
NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER = 1, 2
NFT_CMP_EQ = 0
NFT_BITWISE_BOOL = 0
NFTA_CHAIN_FLAGS = 10
NFT_CHAIN_BINDING = 0x4
NFTA_OBJ_TABLE, NFTA_OBJ_NAME, NFTA_OBJ_TYPE = 1, 2, 3
NFT_LIMIT_PKTS = 0
LOGLEVEL_WARNING = 4
NFT_REJECT_TCP_RST, NFT_REJECT_ICMPX_UNREACH = 1, 2
NFT_REJECT_ICMPX_ADMIN_PROHIBITED = 3
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


@dataclass(frozen=True, slots=True)
class Frame:
    """A table without the elements: attributes by name, as _simplified leaves them.

    table: None where there is none; chains, sets: without anonymous ones, which come and go with the rules that use
    them; rules: the expressions of each rule, by chain; objects: (type, name).
    """

    table: Mapping[str, Any] | None
    chains: Mapping[str, Mapping[str, Any]]
    sets: Mapping[str, Mapping[str, Any]]
    rules: Mapping[str, Sequence[Any]]
    objects: tuple[tuple[bytes, str], ...] = ()

    @property
    def devices(self) -> frozenset[str]:
        """Those at whose ingress our chain stands."""
        hook = self.chains.get(INGRESS_CHAIN, {}).get("NFTA_CHAIN_HOOK", {})
        return frozenset(hook.get("NFTA_HOOK_DEVS", ()))


def create_requests(layout: Layout, elements: Iterable[Request] = (), standing: Collection[str] = ()) -> list[Request]:
    """Everything of the layout, and elements for its sets, to be sent as one transaction.

    standing: sets that are as they should be and are not asked for again (one that has been enlarged would shrink).

    nf_tables takes a table, chain or set that is there already as made (without NLM_F_EXCL); rules would be
    doubled, so our chains are emptied first.
    """
    first, sets, chains, rules = _encoded_parts(layout)
    requests = [first, *(request for name, request in sets.items() if name not in standing), *chains]
    for scope in layout.scopes:
        if scope.ports:
            requests += _port_requests(layout.table, scope.port_set, scope.ports)
    return [*requests, *elements, *rules]


@lru_cache(maxsize=8)
def _encoded_parts(layout: Layout) -> tuple[Request, dict[str, Request], list[Request], list[Request]]:
    """The table; its sets by name; its chains, emptied; the rules.  pyroute2 takes 30 ms for them, the kernel half a
    millisecond to do it all: they are kept, so that a table that somebody has taken away is back at once."""
    table = layout.table
    # Flags 0 also wake a table that somebody has made dormant.
    attributes: Attributes = [("NFTA_TABLE_NAME", table), ("NFTA_TABLE_FLAGS", 0)]
    first = _request(NFT_MSG_NEWTABLE, NLM_F_CREATE, nft_table_msg, attributes)
    sets = {
        spec.name: _request(NFT_MSG_NEWSET, NLM_F_CREATE, nft_set_msg, _set_attributes(table, spec, i))
        for i, spec in enumerate(layout.sets, 1)
    }
    chains = [
        _request(NFT_MSG_NEWCHAIN, NLM_F_CREATE, nft_chain_msg, _chain_attributes(layout, chain))
        for chain in layout.chains
    ]
    chains += [
        _request(NFT_MSG_DELRULE, 0, nft_rule_msg, [("NFTA_RULE_TABLE", table), ("NFTA_RULE_CHAIN", chain)])
        for chain in layout.chains
    ]
    rules = [
        _request(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, nft_rule_msg, _rule_attributes(table, rule))
        for rule in layout.rules
    ]
    return first, sets, chains, rules


def _port_requests(table: str, spec: SetSpec, ports: Iterable[int]) -> list[Request]:
    """Empties a set of ports and fills it anew."""
    elements = [codec.list_element(port, spec.width) for port in ports]
    everything, _ = next(codec.element_requests(codec.NFT_MSG_NEWSETELEM, NLM_F_CREATE, table, spec.name, elements))
    return [codec.flush_request(table, spec.name), everything]


def remove_request(layout: Layout) -> Request:
    return _request(NFT_MSG_DELTABLE, 0, nft_table_msg, [("NFTA_TABLE_NAME", layout.table)])


def list_requests(layout: Layout) -> tuple[Request, ...]:
    """Listings of all tables, and of this table's chains (or those of all tables), sets, rules and objects;
    `listed` takes the answers."""
    table = codec.general() + codec.string(NFTA_OBJ_TABLE, layout.table)
    return (
        _request(NFT_MSG_GETTABLE, NLM_F_DUMP, nft_table_msg, []),
        _request(NFT_MSG_GETCHAIN, NLM_F_DUMP, nft_chain_msg, [("NFTA_CHAIN_TABLE", layout.table)]),
        _request(NFT_MSG_GETSET, NLM_F_DUMP, nft_set_msg, [("NFTA_SET_TABLE", layout.table)]),
        _request(NFT_MSG_GETRULE, NLM_F_DUMP, nft_rule_msg, [("NFTA_RULE_TABLE", layout.table)]),
        Request(NFT_MSG_GETOBJ, NLM_F_DUMP, table),
    )


def listed(
    name: str,
    tables: Iterable[bytes],
    chains: Iterable[bytes],
    sets: Iterable[bytes],
    rules: Iterable[bytes],
    objects: Iterable[bytes],
) -> Frame:
    """The table of that name in the payloads of these listings."""
    by_chain: dict[str, list[Any]] = {}
    for rule in (_decoded(nft_rule_msg, _lasting(p, _RULE_PASSING)) for p in rules):
        if rule["NFTA_RULE_TABLE"] == name:
            by_chain.setdefault(rule["NFTA_RULE_CHAIN"], []).append(rule.get("NFTA_RULE_EXPRESSIONS", []))
    all_sets = (_decoded(nft_set_msg, _lasting(p, _SET_PASSING)) for p in sets)
    return Frame(
        next((t for t in (_decoded(nft_table_msg, p) for p in tables) if t["NFTA_TABLE_NAME"] == name), None),
        _named("CHAIN", name, (_decoded(nft_chain_msg, p) for p in chains if not _is_bound(p))),
        _named("SET", name, (s for s in all_sets if "NFT_SET_ANONYMOUS" not in s.get("NFTA_SET_FLAGS", ()))),
        by_chain,
        tuple((kind, n) for table, n, kind in map(_object_names, objects) if table == name),
    )


@lru_cache(maxsize=8)
def intended(layout: Layout) -> Frame:
    """The layout as the kernel would list it; kept, because pyroute2 takes 70 ms for it."""
    name = layout.table
    rules: dict[str, list[Any]] = {chain: [] for chain in layout.chains}
    for rule in layout.rules:
        rules[rule.chain].append(_plain(nft_rule_msg, _rule_attributes(name, rule))["NFTA_RULE_EXPRESSIONS"])
    return Frame(
        {},
        {chain: _plain(nft_chain_msg, _chain_attributes(layout, chain)) for chain in layout.chains},
        {spec.name: _plain(nft_set_msg, _set_attributes(name, spec, 0)) for spec in layout.sets},
        rules,
    )


# NFTA_RULE_HANDLE and NFTA_RULE_POSITION; NFTA_SET_HANDLE and NFTA_SET_COUNT.
_RULE_PASSING, _SET_PASSING = frozenset((3, 6)), frozenset((16, codec.NFTA_SET_COUNT))


def _lasting(payload: bytes, passing: frozenset[int]) -> bytes:
    """The message without what is another each time that it is made or listed again, so that it is known again."""
    head = len(codec.general())
    kept = (codec.attribute(kind, value) for kind, value in codec.attributes(payload[head:]) if kind not in passing)
    # The last two bytes of struct nfgenmsg are the ruleset's generation.
    return payload[: head - 2] + bytes(2) + b"".join(kept)


def _named(what: str, table: str, found: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f[f"NFTA_{what}_NAME"]: f for f in found if f[f"NFTA_{what}_TABLE"] == table}


def _is_bound(chain: bytes) -> bool:
    """Is it the anonymous chain of a rule?"""
    flags = dict(codec.attributes(chain[len(codec.general()) :])).get(NFTA_CHAIN_FLAGS, b"")
    return bool(int.from_bytes(flags, "big") & NFT_CHAIN_BINDING)


def _object_names(payload: bytes) -> tuple[str, str, bytes]:
    found = dict(codec.attributes(payload[len(codec.general()) :]))
    table, name = (found[kind].rstrip(b"\0").decode() for kind in (NFTA_OBJ_TABLE, NFTA_OBJ_NAME))
    return table, name, found.get(NFTA_OBJ_TYPE, b"")


def _set_attributes(table: str, spec: SetSpec, number: int) -> Attributes:
    flags = {flag for flag, is_set in (("NFT_SET_INTERVAL", spec.interval), ("NFT_SET_TIMEOUT", spec.timed)) if is_set}
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
    if spec.timed:
        attributes.append(("NFTA_SET_GC_INTERVAL", GC_INTERVAL_MS))
    if spec.bans:
        attributes.append(("NFTA_SET_EXPR", _expression("counter")))
    return attributes


def _chain_attributes(layout: Layout, chain: str) -> Attributes:
    attributes: Attributes = [("NFTA_CHAIN_TABLE", layout.table), ("NFTA_CHAIN_NAME", chain)]
    if chain in layout.base_chains:
        number, priority = NF_INET_PRE_ROUTING, PRIORITY_RAW
        devices: Attributes = []
        if chain == INGRESS_CHAIN:
            number, priority = NF_INET_INGRESS, PRIORITY_INGRESS
            names = [("NFTA_DEVICE_NAME", device) for device in layout.ingress]
            devices = [("NFTA_HOOK_DEVS", {"attrs": names})]
        hook: Attributes = [("NFTA_HOOK_HOOKNUM", number), ("NFTA_HOOK_PRIORITY", priority), *devices]
        attributes += [
            ("NFTA_CHAIN_TYPE", "filter"),
            ("NFTA_CHAIN_HOOK", {"attrs": hook}),
            ("NFTA_CHAIN_POLICY", NF_ACCEPT),
        ]
    return attributes


def _rule_attributes(table: str, rule: Rule) -> Attributes:
    expressions = [] if rule.match is None else _match(rule.match)
    if isinstance(rule.verdict, Log):
        expressions += _log(rule.verdict)
    elif isinstance(rule.verdict, Reject):
        expressions += _reject(rule.verdict)
    else:
        expressions.append(_expression("immediate", DREG=NFT_REG_VERDICT, DATA=_verdict(rule.verdict)))
    return [("NFTA_RULE_TABLE", table), ("NFTA_RULE_CHAIN", rule.chain), ("NFTA_RULE_EXPRESSIONS", expressions)]


def _is(meta: int, value: int) -> list[dict[str, Any]]:
    return [
        _expression("meta", KEY=meta, DREG=NFT_REG_1),
        _expression("cmp", SREG=NFT_REG_1, OP=NFT_CMP_EQ, DATA=_value(bytes((value,)))),
    ]


def _match(spec: SetSpec) -> list[dict[str, Any]]:
    if spec.kind is Kind.PORTS:
        expressions = _is(NFT_META_L4PROTO, IPPROTO_TCP)
        base, offset = NFT_PAYLOAD_TRANSPORT_HEADER, PORT_OFFSET
    else:
        expressions = _is(NFT_META_NFPROTO, NFPROTO[spec.family])
        base, offset = NFT_PAYLOAD_NETWORK_HEADER, SOURCE_OFFSET[spec.family]
    expressions.append(_expression("payload", DREG=NFT_REG_1, BASE=base, OFFSET=offset, LEN=spec.width))
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
    return [*expressions, _expression("lookup", SREG=NFT_REG_1, SET=spec.name)]


def _log(log: Log) -> list[dict[str, Any]]:
    return [
        _expression("limit", RATE=log.rate, UNIT=60, BURST=LOG_BURST, TYPE=NFT_LIMIT_PKTS, FLAGS=0),
        _expression("log", PREFIX=log.prefix, LEVEL=LOGLEVEL_WARNING),
    ]


def _reject(reject: Reject) -> list[dict[str, Any]]:
    if reject is Reject.TCP_RESET:
        return [*_is(NFT_META_L4PROTO, IPPROTO_TCP), _expression("reject", TYPE=NFT_REJECT_TCP_RST)]
    return [_expression("reject", TYPE=NFT_REJECT_ICMPX_UNREACH, ICMP_CODE=NFT_REJECT_ICMPX_ADMIN_PROHIBITED)]


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


@lru_cache(maxsize=512)
def _decoded(message_class: Any, payload: bytes) -> dict[str, Any]:
    """Kept, because pyroute2 takes half a millisecond and mostly the same is listed again; nobody may change it."""
    message = message_class((NLMSGHDR_BYTES + len(payload)).to_bytes(4, sys.byteorder) + bytes(12) + payload)
    message.decode()
    plain: dict[str, Any] = _simplified(message)
    if "NFTA_SET_EXPR" in plain:
        # A set's own counter is the pattern for those of its elements: its numbers say nothing.
        plain["NFTA_SET_EXPR"] = plain["NFTA_SET_EXPR"].get("NFTA_EXPR_NAME")
    if "NFTA_CHAIN_HOOK" in plain:
        # What older programs read; the devices are in NFTA_HOOK_DEVS too.
        plain["NFTA_CHAIN_HOOK"].pop("NFTA_HOOK_DEV", None)
    return plain


def _simplified(value: Any) -> Any:
    """Dictionaries and lists instead of pyroute2's objects, without what is empty (flags of which none is set)."""
    if isinstance(value, list):
        return [_simplified(item) for item in value]
    if isinstance(value, dict) and "attrs" in value:
        if {name for name, _ in value["attrs"]} == {"NFTA_DEVICE_NAME"}:
            return frozenset(name for _, name in value["attrs"])
        pairs = ((name, _simplified(item)) for name, item in value["attrs"])
        return {name: item for name, item in pairs if item not in (None, frozenset(), {})}
    return value
