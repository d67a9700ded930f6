"""Who connects to the mail server, when, what Postfix logs about it, and what DNS knows about them.

Data: clients with their visits; the message shapes are those of Postfix 3.7.  A visit is one connection: it happens
at its time (seconds from the start) if the server can be reached, and then leaves its lines in the log.
`dns_data` gives what the demonstration's DNS server answers.
"""

from __future__ import annotations

from dataclasses import dataclass

MAXRETRY = 6
"""Points at which the shipped settings ban."""

Line = tuple[str, str]
"""Program below postfix/, message with {client} for `name[address]`."""


@dataclass(frozen=True, slots=True)
class Visit:
    """address: of the client's; at: seconds; port: to which it connects; lines: what Postfix logs."""

    address: str
    at: float
    lines: tuple[Line, ...]
    port: int = 25


@dataclass(frozen=True, slots=True)
class Client:
    """who: for the audience; name: its PTR name, which leads back to the (first) address; listed: zone to code."""

    who: str
    visits: tuple[Visit, ...]
    name: str = ""
    listed: tuple[tuple[str, str], ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(v.address for v in self.visits))


def _lone_dot(daemon: str = "smtpd") -> tuple[Line, ...]:
    return (
        (daemon, "connect from {client}"),
        (daemon, "warning: non-SMTP command from {client}: ."),
        (daemon, "disconnect from {client} unknown=0/1 commands=0/1"),
    )


def _http(request: str) -> tuple[Line, ...]:
    return (
        ("smtpd", "connect from {client}"),
        ("smtpd", f"warning: non-SMTP command from {{client}}: {request}"),
        ("smtpd", "disconnect from {client} unknown=0/1 commands=0/1"),
    )


_TLS = (
    ("smtpd", "connect from {client}"),
    ("smtpd", "lost connection after UNKNOWN from {client}"),
    ("smtpd", "disconnect from {client} unknown=0/1 commands=0/1"),
)

_GARBAGE = (
    ("smtpd", "connect from {client}"),
    ("smtpd", "too many errors after UNKNOWN from {client}"),
    ("smtpd", "disconnect from {client} unknown=0/20 commands=0/20"),
)


def _relay(victim: str) -> tuple[Line, ...]:
    return (
        ("smtpd", "connect from {client}"),
        (
            "smtpd",
            f"NOQUEUE: reject: RCPT from {{client}}: 554 5.7.1 <{victim}>: Relay access denied; "
            f"from=<info@cheap.example> to=<{victim}> proto=ESMTP helo=<cheap.example>",
        ),
        ("smtpd", "disconnect from {client} ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4"),
    )


def _guess(user: str) -> tuple[Line, ...]:
    return (
        ("submission/smtpd", "connect from {client}"),
        (
            "submission/smtpd",
            "warning: {client}: SASL LOGIN authentication failed: authentication failure, "
            f"sasl_username={user}@example.net",
        ),
        ("submission/smtpd", "disconnect from {client} ehlo=2 starttls=1 auth=0/1 quit=1 commands=4/5"),
    )


def _unknown_users(sender: str, *users: str) -> tuple[Line, ...]:
    rejects = tuple(
        (
            "smtpd",
            f"NOQUEUE: reject: RCPT from {{client}}: 550 5.1.1 <{user}@example.net>: Recipient address rejected: "
            f"User unknown in virtual mailbox table; from=<{sender}> to=<{user}@example.net> "
            "proto=ESMTP helo=<mail.letters.example>",
        )
        for user in users
    )
    count = len(users)
    return (
        ("smtpd", "connect from {client}"),
        *rejects,
        ("smtpd", f"disconnect from {{client}} ehlo=1 mail=1 rcpt=0/{count} quit=1 commands=3/{count + 3}"),
    )


def _delivery(queue: str, sender: str, recipient: str) -> tuple[Line, ...]:
    return (
        ("smtpd", "connect from {client}"),
        ("smtpd", f"{queue}: client={{client}}"),
        ("cleanup", f"{queue}: message-id=<{queue.lower()}@{sender.partition('@')[2]}>"),
        ("qmgr", f"{queue}: from=<{sender}>, size=2804, nrcpt=1 (queue active)"),
        ("smtpd", "disconnect from {client} ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5"),
        (
            "virtual",
            f"{queue}: to=<{recipient}>, relay=virtual, delay=0.09, delays=0.08/0/0/0.01, dsn=2.0.0, "
            "status=sent (delivered to mailbox)",
        ),
        ("qmgr", f"{queue}: removed"),
    )


def _customer(queue: str) -> tuple[Line, ...]:
    """A wrong password, then the right one, and a mail sent."""
    return (
        ("submission/smtpd", "connect from {client}"),
        (
            "submission/smtpd",
            "warning: {client}: SASL PLAIN authentication failed: authentication failure, "
            "sasl_username=alice@example.net",
        ),
        ("submission/smtpd", "disconnect from {client} ehlo=2 starttls=1 auth=0/1 quit=1 commands=4/5"),
        ("submission/smtpd", "connect from {client}"),
        ("submission/smtpd", f"{queue}: client={{client}}, sasl_method=PLAIN, sasl_username=alice@example.net"),
        (
            "submission/smtpd",
            "disconnect from {client} ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=8",
        ),
    )


BOT = Client(
    "sends a lone dot, over and over",
    tuple(Visit("203.0.113.66", at, _lone_dot()) for at in (0.6, 1.9, 4.2, 7.0)),
    listed=(("zen.spamhaus.org", "127.0.0.4"),),
)

IPV6_BOT = Client(
    "garbage, each time from another address of one /64",
    (
        Visit("2001:db8:bad:1::a1", 1.7, _GARBAGE),
        Visit("2001:db8:bad:1::b2", 4.6, _GARBAGE),
        Visit("2001:db8:bad:1::c3", 6.8, _GARBAGE),
    ),
    listed=(("bl.blocklist.de", "127.0.0.9"),),
)

GUESSER = Client(
    "guesses passwords on port 587",
    tuple(
        Visit("203.0.113.87", at, _guess(user), port=587)
        for at, user in zip(
            (0.9, 2.3, 3.6, 5.3, 7.3, 9.3, 11.0),
            ("admin", "info", "test", "scan", "office", "bob", "root"),
            strict=True,
        )
    ),
    name="p87.dyn.isp.example",
    listed=(("zen.spamhaus.org", "127.0.0.11"),),
)

SCANNER = Client(
    "HTTP, TLS, relaying; on no list",
    tuple(
        Visit("203.0.113.71", at, lines)
        for at, lines in (
            (1.5, _http("GET / HTTP/1.1")),
            (2.7, _TLS),
            (4.1, _relay("victim@example.org")),
            (6.0, _http("CONNECT 198.51.100.1:443 HTTP/1.0")),
            (7.9, _relay("test@example.com")),
            (9.9, _relay("victim@example.org")),
            (11.6, _TLS),
        )
    ),
    name="vps71.hosting.example",
)

NEWSLETTER = Client(
    "a known good mailer with an old address list",
    (
        Visit("198.51.100.10", 2.9, _unknown_users("news@letters.example", "anna", "ben", "carla", "dora")),
        Visit("198.51.100.10", 6.3, _unknown_users("news@letters.example", "emil", "fritz", "gerda")),
    ),
    name="mail.letters.example",
    listed=(("list.dnswl.org", "127.0.2.2"),),
)

CUSTOMER = Client(
    "a customer at home mistypes the password once",
    (Visit("198.51.100.77", 5.0, _customer("5F8B12A1C7"), port=587),),
    name="p77.dyn.isp.example",
    listed=(("zen.spamhaus.org", "127.0.0.10"),),
)

REFUSED = Client(
    "a broken office device",
    tuple(Visit("198.51.100.99", at, _lone_dot()) for at in (8.5, 10.4)),
    name="host99.office.example",
    listed=(("zen.spamhaus.org", "127.255.255.254"),),
)

PARTNER = Client(
    "writes mail",
    (
        Visit("198.51.100.25", 0.2, _delivery("3C1D92A1B0", "ina@partner.example", "alice@example.net")),
        Visit("198.51.100.25", 5.6, _delivery("61E402A1D4", "jan@partner.example", "bob@example.net")),
    ),
    name="mail.partner.example",
    listed=(("list.dnswl.org", "127.0.5.1"),),
)

FRIEND = Client(
    "writes mail over IPv6",
    (Visit("2001:db8:600d::25", 3.0, _delivery("4A77B2A1C3", "kim@friend.example", "alice@example.net")),),
    name="mx.friend.example",
)

SUSPECTS = (BOT, IPV6_BOT, GUESSER, SCANNER, NEWSLETTER, CUSTOMER, REFUSED)
EVERYBODY = (*SUSPECTS, PARTNER, FRIEND)

ZONES = ("zen.spamhaus.org", "bl.blocklist.de", "bl.spamcop.net", "psbl.surriel.com", "list.dnswl.org")

# dnswl's test entry has a code of its own (rules/dnsbl/dnswl.toml).
_TEST_CODE = {"list.dnswl.org": "127.0.10.0"}


def dns_data() -> tuple[dict[str, dict[str, list[str]]], dict[str, str]]:
    """DNSBL zones with what they list, and reverse names, as demo.dnsbl_server takes them."""
    zones = {
        zone: {
            **({"127.0.0.2": [_TEST_CODE[zone]], "::ffff:127.0.0.2": [_TEST_CODE[zone]]} if zone in _TEST_CODE else {}),
            **{
                address: [code]
                for client in EVERYBODY
                for listing, code in client.listed
                if listing == zone
                for address in client.addresses
            },
        }
        for zone in ZONES
    }
    return zones, {client.addresses[0]: client.name for client in EVERYBODY if client.name}
