"""What our reader makes of every filter file is what fail2ban's own reader makes of it, expression by expression.

fail2ban's runs in Debian's Python, from the unpacked package.  Each filter is read with each set of parameters that
makes it another: modes, log types, and what its own header offers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nftban.detect import filterfile
from nftban.detect.filterfile import Definition, Filter

PYTHON = Path("/usr/bin/python3")
READ = """
import json, logging, sys
logging.disable(logging.CRITICAL)
from fail2ban.client.filterreader import FilterReader
out = {}
for name, options in json.loads(sys.stdin.read()):
    try:
        reader = FilterReader(name, "jail", dict(options), basedir=sys.argv[1])
        reader.read()
        reader.getOptions({})
        stream = reader.convert()
    except Exception as error:
        stream = repr(error)
    out[json.dumps([name, options])] = stream
print(json.dumps(out))
"""
OPTIONS = (
    {},
    *(
        {"mode": mode}
        for mode in ("normal", "ddos", "extra", "aggressive", "auth", "rbl", "errors", "more", "fallback")
    ),
    *({"logtype": kind} for kind in ("file", "short", "journal", "rfc5424")),
    {"logging": "webapp"},
    {"logging": "syslog"},
    {"publickey": "invalid"},
    {"publickey": "any", "mode": "aggressive"},
    {"__pam_auth": "pam_ldap"},
    {"_daemon": "other,daemon"},
    {"mode": "no-such-mode"},
)


def theirs(package: Path, wanted: list[tuple[str, dict[str, str]]]) -> dict[str, Any]:
    if not PYTHON.exists():
        pytest.skip("no Debian Python here to run fail2ban's own reader")
    environment = {**os.environ, "PYTHONPATH": str(package / "usr/lib/python3/dist-packages")}
    done = subprocess.run(
        [PYTHON, "-c", READ, package / "etc/fail2ban"],
        input=json.dumps(wanted),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def in_our_words(stream: list[list[Any]]) -> dict[str, list[str]]:
    """The commands that fail2ban's client would send, as options with lines."""
    out: dict[str, list[str]] = {}
    for command in stream:
        option, value = command[2], command[3]
        if option == "addjournalmatch":
            out.setdefault("journalmatch", []).append(" ".join(command[3:]))
            continue
        option = option.removeprefix("add")
        lines = value if isinstance(value, list) else str(value).split("\n")
        if option == "prefregex":
            lines = ["\n".join(lines)]
        kept = [line.strip() for line in lines if line.strip()]
        if kept:
            out[option] = kept
    return out


def ours(defined: Definition) -> dict[str, list[str]]:
    out = {option: [line.text.strip() for line in value] for option, value in defined.options.items()}
    if "prefregex" in out:
        out["prefregex"] = ["\n".join(out["prefregex"])]
    if "journalmatch" in out:
        out["journalmatch"] = [re.sub(r"['\"]", "", line) for line in out["journalmatch"]]
    return out


def test_every_filter_with_every_parameter_reads_as_fail2ban_reads_it(package: Path) -> None:
    directory = package / "etc/fail2ban/filter.d"
    names = [name for name in filterfile.available([directory]) if not name.endswith("common")]
    wanted = [(name, options) for name in names for options in OPTIONS]
    expected = theirs(package, wanted)
    compared = 0
    for name, options in wanted:
        stream = expected[json.dumps([name, options])]
        parameters = ", ".join(f'{key}="{value}"' for key, value in options.items())
        got = filterfile.definition(f"{name}[{parameters}]", [directory])
        if isinstance(stream, str):
            assert not isinstance(got, Definition), (name, options, stream)
            continue
        if isinstance(got, tuple) and all("there is no `" in fault.what for fault in got):
            # A mode that the filter does not have: fail2ban goes on with `<re-MODE>` as a piece of the expression.
            left = re.findall(r"<[\w/-]+>", str(stream))
            assert any(value in tag for value in options.values() for tag in left), (name, options, got)
            continue
        assert isinstance(got, Definition), (name, options, got)
        assert ours(got) == in_our_words(stream), (name, options)
        compared += 1
    assert compared > len(wanted) * 0.7


def test_every_filter_loads(package: Path) -> None:
    directory = package / "etc/fail2ban/filter.d"
    names = filterfile.available([directory])
    assert len(names) >= 94
    failed = {name: got for name in names if not isinstance(got := filterfile.load(name, [directory]), Filter)}
    # Parts of others, with no failregex or only a piece of one.
    assert {name for name in failed if not name.endswith("common")} == set()
    for faults in failed.values():
        assert all(Path(fault.file).is_relative_to(directory) and fault.what for fault in faults)
