"""Results as the daemon gives them, about one story: 203.0.113.7 sent garbage to port 25 and is listed.

NOW is 2026-11-24 20:30:00 UTC.  HOSTILE is what a client managed to put into a log line.
"""

from __future__ import annotations

from typing import Any

NOW = 1795552200.0
HOSTILE = "\x1b]0;owned\x07[bold red]x[/bold red] \u202egnp.exe\r\x9b2J"

BAN: dict[str, Any] = {
    "prefix": "203.0.113.7",
    "scope": "mail",
    "since": NOW - 180,
    "until": NOW + 3420,
    "origin": "log",
    "jail": "postfix",
    "reason": "7 of 6 points: 3 offences, zen.spamhaus.org +4",
    "score": 7,
    "threshold": 6,
}
MANUAL: dict[str, Any] = {
    "prefix": "2001:db8:1234:5678::/64",
    "scope": "all",
    "since": NOW - 86400,
    "until": None,
    "origin": "manual",
    "jail": "",
    "reason": "spam run",
    "score": None,
    "threshold": None,
}
LISTINGS: list[dict[str, Any]] = [
    {
        "zone": "zen.spamhaus.org",
        "answer": "listed",
        "codes": ["127.0.0.4"],
        "points": 4,
        "policy_points": 0,
        "reason": "SBL/XBL: exploited host",
        "asked": NOW - 181,
        "ttl": 60,
        "logged": False,
    },
    {
        "zone": "bl.spamcop.net",
        "answer": "clear",
        "codes": [],
        "points": 0,
        "policy_points": 0,
        "reason": "",
        "asked": NOW - 181,
        "ttl": 2100,
        "logged": False,
    },
    {
        "zone": "psbl.surriel.com",
        "answer": "unknown",
        "codes": [],
        "points": 0,
        "policy_points": 0,
        "reason": "no answer within 4 s",
        "asked": NOW - 181,
        "ttl": 0,
        "logged": False,
    },
]
REVERSE: dict[str, Any] = {
    "names": ["host7.dyn.example.net"],
    "has_name": True,
    "confirmed": False,
    "reason": "no name leads back to the address",
    "asked": NOW - 181,
    "ttl": 300,
    "kind": "generic",
    "logged": False,
}
HELO: dict[str, Any] = {
    "name": HOSTILE,
    "fault": "no full domain name",
    "forward": None,
    "same_organisation": None,
    "reason": "no full domain name",
    "asked": NOW - 181,
    "ttl": 3600,
}
SPF: dict[str, Any] = {
    "result": "fail",
    "domain": "mail.example.org",
    "reason": f"-all of {HOSTILE}",
    "asked": NOW - 181,
    "ttl": 300,
}


def offence(seconds_ago: float, line: str, rule: str = "3") -> dict[str, Any]:
    return {
        "time": NOW - seconds_ago,
        "filter": "postfix",
        "rule": rule,
        "weight": 1,
        "service": "smtp",
        "facts": {"helo": "[203.0.113.7]"},
        "source": "/var/log/mail.log",
        "line": line,
    }


ZONES: list[dict[str, Any]] = [
    {
        "zone": "zen.spamhaus.org",
        "notation": "zen.spamhaus.org=127.0.0.[2..9]*4, zen.spamhaus.org=127.0.0.[10;11]*2",
        "state": "ok",
        "why": "test points answered as they must",
        "since": NOW - 7300,
        "usable": True,
        "queries_today": 412,
        "budget": 80000,
        "tested": NOW - 600,
    },
    {
        "zone": "bl.spamcop.net",
        "notation": "bl.spamcop.net*2",
        "state": "blocked",
        "why": "127.255.255.254: asked through a public resolver",
        "since": NOW - 300,
        "usable": False,
        "queries_today": 3,
        "budget": 80000,
        "tested": NOW - 300,
    },
]
KNOWN: list[dict[str, Any]] = [
    {
        "names": ["list.dnswl.org"],
        "keyed": [],
        "points": [-4],
        "limit": 100000,
        "about": "an allow list: known mail servers",
        "terms": HOSTILE,
        "home": "https://www.dnswl.org/",
        "refused": "",
    },
    {
        "names": ["sorbs.net"],
        "keyed": [],
        "points": [],
        "limit": None,
        "about": "",
        "terms": "",
        "home": "",
        "refused": "SORBS was shut down in June 2024",
    },
]


OFFENCES = [
    offence(
        240, "Nov 24 20:26:00 mx1 postfix/smtpd[1234]: warning: non-SMTP command from unknown[203.0.113.7]: " + HOSTILE
    ),
    offence(
        210, "Nov 24 20:26:30 mx1 postfix/smtpd[1236]: too many errors after UNKNOWN from unknown[203.0.113.7]", "5"
    ),
    offence(
        181,
        "Nov 24 20:26:59 mx1 postfix/smtpd[1240]: improper command pipelining after EHLO from unknown[203.0.113.7]: "
        "MAIL FROM:<a@b.example>\\r\\nRCPT TO:<x@y.example>\\r\\nDATA\\r\\nSubject: you have won a great prize today",
    ),
]
EXPLAINED: dict[str, Any] = {
    **BAN,
    "rule": "7 points of the 6 needed: banned for 1h",
    "parts": [{"points": 3, "reason": "3 offences in 10m"}, {"points": 4, "reason": "zen.spamhaus.org 127.0.0.4"}],
    "duration": 3600.0,
    "needs_listing": True,
    "listings": LISTINGS,
    "reverse": REVERSE,
    "helo": HELO,
    "spf": SPF,
    "offences": OFFENCES,
    "ended": None,
}
EARLIER: dict[str, Any] = {
    **EXPLAINED,
    "since": NOW - 90000,
    "until": NOW - 86400,
    "score": 6,
    "ended": {"time": NOW - 86400, "how": "expired"},
}
ENTRY: dict[str, Any] = {
    "set": "ban4_mail",
    "prefix": "203.0.113.7",
    "scope": "mail",
    "until": NOW + 3420,
    "packets": 12,
    "bytes": 720,
    "ban": BAN,
}
WATCHED: dict[str, Any] = {
    "jail": "sshd",
    "score": 2,
    "threshold": 6,
    "parts": [{"points": 2, "reason": "2 offences in 10m"}],
    "offences": [offence(60, "Nov 24 20:29:00 mx1 sshd[99]: Failed password for root from 203.0.113.7 port 4 ssh2")],
    "listings": [],
    "reverse": None,
    "helo": None,
    "spf": None,
}

RESULTS: dict[str, dict[str, Any]] = {
    "allow": {
        "entries": [
            {"entry": "192.0.2.0/24", "addresses": ["192.0.2.0/24"], "since": None, "reason": "", "failure": None},
            {
                "entry": "home.example",
                "addresses": ["198.51.100.7", "2001:db8::7"],
                "since": NOW - 90000,
                "reason": HOSTILE,
                "failure": None,
            },
            {
                "entry": "gone.example",
                "addresses": [],
                "since": NOW - 60,
                "reason": "",
                "failure": "[Errno -2] " + HOSTILE,
            },
        ]
    },
    "allow_add": {
        "added": ["203.0.113.7"],
        "refused": [
            {"entry": "x y", "reason": "'x y' is not an address, a prefix or a host name", "advice": "write 192.0.2.7"}
        ],
    },
    "allow_remove": {"removed": ["203.0.113.7"], "refused": []},
    "ping": {"version": "0.1.0", "pid": 4242},
    "ban": {
        "banned": [BAN],
        "refused": [
            {
                "prefix": "192.0.2.1",
                "reason": "192.0.2.1 is a gateway of this machine",
                "advice": "bans never cover protected addresses",
            }
        ],
    },
    "unban": {
        "unbanned": [BAN],
        "not_banned": [
            {"prefix": "203.0.113.9", "reason": "203.0.113.9 is not banned", "advice": "it lies in 203.0.113.0/24"}
        ],
        "split": [{**MANUAL, "into": ["2001:db8:1234:5678::1", "2001:db8:1234:5678::2/127"]}],
    },
    "query": {"address": "203.0.113.7", "banned": True, "entries": [ENTRY], "protected": None},
    "list": {"bans": [{**BAN, "in_kernel": True}, {**MANUAL, "in_kernel": False}]},
    "why": {
        "address": "203.0.113.7",
        "banned": True,
        "protected": None,
        "login": {"time": NOW - 800000, "user": "alice"},
        "bans": [EXPLAINED, EARLIER],
        "watched": [WATCHED],
        "kernel": [ENTRY],
        "note": "",
    },
    "check": {
        "address": "203.0.113.7",
        "listings": LISTINGS,
        "reverse": REVERSE,
        "helo": HELO,
        "spf": SPF,
        "names": [{"points": 1, "reason": f"HELO {HOSTILE} is no full domain name"}],
        "points": {"all": 4, "smtp": 5},
        "note": None,
    },
    "metrics": {"text": "# TYPE nftban_lines counter\nnftban_lines_total 5\n# EOF\n"},
    "notify_test": {
        "sent": [
            {"receiver": "/usr/local/bin/tell", "failure": None},
            {"receiver": "URL 1 (json://...)", "failure": f"ended with status 3: {HOSTILE}"},
        ]
    },
    "zones": {"zones": ZONES, "known": KNOWN, "note": None},
    "test_zones": {"zones": ZONES[1:], "known": [], "note": f"not asked: {HOSTILE}"},
    "status": {
        "version": "0.1.0",
        "pid": 4242,
        "started": NOW - 7400,
        "observe": False,
        "config": ["/etc/nftban/nftban.toml", "/etc/nftban/conf.d/local.toml"],
        "sources": [
            {
                "path": "/var/log/mail.log",
                "exists": True,
                "lines": 123456,
                "last_line": NOW - 2,
                "bytes": 23456789,
                "oversized": 1,
                "undecodable": 3,
                "error": None,
            },
            {
                "path": "/var/log/auth.log",
                "exists": False,
                "lines": 0,
                "last_line": None,
                "bytes": 0,
                "oversized": 0,
                "undecodable": 0,
                "error": "no such file",
            },
        ],
        "jails": [
            {
                "name": "postfix",
                "filter": "postfix[mode=aggressive]",
                "scope": "mail",
                "maxretry": 6,
                "findtime": 600.0,
                "bantime": 3600.0,
                "offences": 431,
                "suspects": 12,
                "bans": 1,
            },
            {
                "name": "sshd",
                "filter": "sshd",
                "scope": "ssh",
                "maxretry": 6,
                "findtime": 600.0,
                "bantime": None,
                "offences": 9,
                "suspects": 1,
                "bans": 0,
            },
        ],
        "zones": [
            {
                "zone": "zen.spamhaus.org",
                "state": "ok",
                "why": "test points answered as they must",
                "since": NOW - 7300,
                "queries_today": 412,
                "budget": 80000,
                "tested": NOW - 600,
            },
            {
                "zone": "bl.spamcop.net",
                "state": "blocked",
                "why": "127.255.255.254: asked through a public resolver",
                "since": NOW - 300,
                "queries_today": 3,
                "budget": 80000,
                "tested": NOW - 300,
            },
        ],
        "dns": {"servers": ["127.0.0.1:53"], "note": None},
        "notify": {"sent": 7, "failed": 2, "dropped": 0, "waiting": 1, "failing": [f"/bin/tell {HOSTILE}"]},
        "kernel": {"table": "nftban", "intact": True, "drift": [], "elements": {"ban4_mail": 1, "ban6net64_all": 1}},
        "jobs": [
            {"id": "reconcile", "next": NOW + 34, "last": NOW - 26, "last_error": None, "missed": 0},
            {"id": "reverify", "next": NOW + 600, "last": None, "last_error": "database is locked", "missed": 2},
        ],
        "events": [
            {"time": NOW - 300, "kind": "zone-blocked", "text": "bl.spamcop.net " + HOSTILE},
            {"time": NOW - 180, "kind": "ban", "text": "203.0.113.7 in mail for 1h"},
        ],
        "counters": {"lines": 123456, "offences": 440},
    },
}
