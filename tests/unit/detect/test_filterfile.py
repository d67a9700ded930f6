"""Filters in fail2ban's format: what loads, and what is said of what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.detect import filterfile
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Matcher
from nftban.errors import Fault
from nftban.records import LogLine, Offence

SHIPPED = Path(__file__).parents[3] / "rules" / "filters"
NOW = 1795552000.0

SEED = """\
[INCLUDES]
before = common.conf
[Definition]
failregex = reject: RCPT from (.*)\\[<HOST>\\]: 502 5.5.2
            reject: RCPT from (.*)\\[<HOST>\\]: 502 5.5.2
ignoreregex =
"""


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


def loaded(spec: str, *directories: Path) -> Filter:
    result = filterfile.load(spec, directories)
    assert isinstance(result, Filter), "\n".join(map(str, result))
    return result


def faults(spec: str, *directories: Path) -> tuple[Fault, ...]:
    result = filterfile.load(spec, directories)
    assert not isinstance(result, Filter)
    return result


def addresses(filter: Filter, *lines: str) -> list[str]:
    matcher = Matcher(filter)
    results = [matcher.match(LogLine("log", line), NOW) for line in lines]
    return [str(r.prefix) if isinstance(r, Offence) else "-" for r in results]


def test_the_seed_filter_loads_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "postfix-502.conf").write_text(SEED)
    seed = loaded("postfix-502", tmp_path, SHIPPED)
    assert len(seed.rules) == 2
    line = "Nov 24 20:13:28 mail postfix/smtpd[1]: NOQUEUE: reject: RCPT from x[192.0.2.7]: 502 5.5.2 <x>: no"
    assert addresses(seed, line, line.replace("502", "554")) == ["192.0.2.7", "-"]


def test_the_first_directory_gives_the_filter_and_a_local_overlays_it(tmp_path: Path) -> None:
    etc, shipped = tmp_path / "etc", tmp_path / "shipped"
    etc.mkdir()
    shipped.mkdir()
    write(
        shipped, a__conf="[Definition]\nfailregex = ^shipped <HOST>$\n", b__conf="[Definition]\nfailregex = ^b <HOST>$"
    )
    write(etc, a__local="[Definition]\nfailregex = %(known/failregex)s\n            ^local <HOST>$\n")
    lines = ("shipped 192.0.2.1", "local 192.0.2.2", "etc 192.0.2.3")
    assert addresses(loaded("a", etc, shipped), *lines) == ["192.0.2.1", "192.0.2.2", "-"]
    write(etc, a__conf="[Definition]\nfailregex = ^etc <HOST>$\n")
    assert addresses(loaded("a", etc, shipped), *lines) == ["-", "192.0.2.2", "192.0.2.3"]
    assert filterfile.available([etc, shipped]) == {"a": etc / "a.conf", "b": shipped / "b.conf"}


def test_parameters_choose_and_override(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__conf="[Definition]\nre-one = ^one <HOST>\nre-two = ^two <HOST>\n         ^zwei <_x> <HOST>\n"
        "failregex = <re-<mode>>\n[Init]\nmode = one\n_x = %(_y)s\n_y = Y\n",
    )
    lines = ("one 192.0.2.1", "two 192.0.2.2", "zwei Y 192.0.2.3", "zwei a,b 192.0.2.4")
    assert addresses(loaded("a", tmp_path), *lines) == ["192.0.2.1", "-", "-", "-"]
    assert addresses(loaded("a[mode=two]", tmp_path), *lines) == ["-", "192.0.2.2", "192.0.2.3", "-"]
    assert addresses(loaded("a[mode=two, _y='a,b']", tmp_path), *lines)[2:] == ["-", "192.0.2.4"]
    assert addresses(loaded('a[mode="two"][_y="a,b"]', tmp_path), *lines)[2:] == ["-", "192.0.2.4"]


def test_includes_are_looked_up_beside_the_file_then_in_the_directories(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    write(one, a__conf="[INCLUDES]\nbefore = c.conf\nafter = z.local\n[Definition]\nfailregex = ^%(word)s <HOST>$\n")
    write(two, c__conf="[DEFAULT]\nword = far\n")
    assert addresses(loaded("a", one, two), "far 192.0.2.1") == ["192.0.2.1"]
    write(one, c__conf="[DEFAULT]\nword = near\n")
    assert addresses(loaded("a", one, two), "near 192.0.2.1") == ["192.0.2.1"]
    write(one, z__local="[DEFAULT]\nword = last\n")
    assert addresses(loaded("a", one, two), "last 192.0.2.1") == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("expression", "line", "address"),
    [
        ("^x <HOST>$", "x 192.0.2.7", "192.0.2.7"),
        ("^x <HOST>$", "x ::ffff:192.0.2.7", "192.0.2.7"),
        ("^x <HOST>$", "x 2001:DB8::7", "2001:db8::7"),
        ("^x <HOST>: y", "x 2001:db8::7: y", "2001:db8::7"),
        ("^x <HOST>", "x 2001:db8::7: y", "2001:db8::7"),
        ("^x <HOST>", "x ::1 y", "::1"),
        ("^x <HOST>", "x 2001:db8:: y", "2001:db8::"),
        ("^x <HOST>$", "x [2001:db8::7]", "2001:db8::7"),
        ("^x <HOST>$", "x fe80::1%eth0", "fe80::1"),
        ("^x <HOST>$", "x host.example.org", "-"),
        ("^x <HOST>", "x 192.0.2.256", "-"),
        ("^x <HOST>", "x 192.0.2.1234", "-"),
        ("^x <HOST>$", "x 192.0.02.7", "-"),
        ("^x <HOST>$", "x 1:2:3:4:5:6:7:8:9", "-"),
        ("^x <ADDR>$", "x 192.0.2.7", "192.0.2.7"),
        ("^x <ADDR>$", "x host.example.org", "-"),
        ("^x <IP4>$", "x 192.0.2.7", "192.0.2.7"),
        ("^x <IP4>$", "x 2001:db8::7", "-"),
        ("^x <IP6>$", "x 2001:db8::7", "2001:db8::7"),
        ("^x <F-IP4/>$", "x 192.0.2.7", "192.0.2.7"),
        ("^x <SUBNET>$", "x 192.0.2.0/24", "192.0.2.0/24"),
        ("^x <ADDR>/<CIDR>$", "x 2001:db8::/32", "2001:db8::/32"),
        ("^x <F-ID>\\S+</F-ID>$", "x 192.0.2.7", "192.0.2.7"),
        ("^x (?P<host>\\S+)$", "x 192.0.2.7", "192.0.2.7"),
        ("^x ((?i)abc|d) <HOST>$", "x ABC 192.0.2.7", "192.0.2.7"),
    ],
)
def test_address_tags(tmp_path: Path, expression: str, line: str, address: str) -> None:
    write(tmp_path, a__conf=f"[Definition]\nfailregex = {expression}\n")
    assert addresses(loaded("a", tmp_path), line) == [address]


def test_inline_comments_and_comment_lines_are_not_part_of_a_value(tmp_path: Path) -> None:
    write(
        tmp_path, a__conf="[Definition]\n# one\nfailregex = ^a <HOST>$ ; two\n# three\n\n    ^b <HOST>$\n    ; four\n"
    )
    assert [rule.line for rule in loaded("a", tmp_path).rules] == [3, 6]


BROKEN = {
    "no-such-filter": ("", [(0, "there is no filter")]),
    "unbalanced": (
        "[Definition]\nfailregex = ^ok <HOST>\n            ^(bad <HOST>\n            ^[worse\n",
        [(3, "not a regular expression"), (4, "not a regular expression")],
    ),
    "twice-the-tag": ("[Definition]\nfailregex = <HOST> <HOST>\n", [(2, "redefinition of group name")]),
    "through-a-reference": (
        "[Definition]\nbad = ^x\n      ^(y\nfailregex = <sub>\nsub = %(bad)s\n",
        [(3, "regular expr")],
    ),
    "through-a-reference-inside": (
        "[Definition]\nbad = (\nfailregex = ^a\n  ^x %(bad)s <HOST>\n",
        [(4, "regular expression")],
    ),
    "undefined": ("[Definition]\nfailregex = ^%(nowhere)s <HOST>\n", [(2, "refers to `%(nowhere)s`")]),
    "circle": ("[Definition]\nfailregex = ^%(a)s\na = %(b)s\nb = %(a)s\n", [(3, "in a circle")]),
    "tag-circle": ("[Definition]\nfailregex = ^<a>\na = <b>x\nb = <a>\n", [(2, "in a circle")]),
    "tag-bomb": ("[Definition]\nfailregex = <a>\na = <b><b>\nb = <c><c>\nc = <a><a>\n", [(3, "in a circle")]),
    "many-lines": (
        "[Definition]\nfailregex = x<SKIPLINES><HOST>\nmaxlines = 3000\n",
        [(3, "maxlines = '3000'")],
    ),
    "no-lines": ("[Definition]\nfailregex = x<HOST>\nmaxlines = two\n", [(3, "maxlines = 'two'")]),
    "strange-dates": (
        "[Definition]\nfailregex = ^<HOST>\ndatepattern = %%d/%%m\n              %%Q (x\n              ^(x\n",
        [(4, "`%Q` is no tag of a date"), (5, "not a regular expression")],
    ),
    "no-failregex": ("[Definition]\nignoreregex =\n", [(0, "no failregex")]),
    "not-ini": ("[Definition]\nfailregex = ^<HOST>\nwhat is this\n", [(3, "neither [section] nor")]),
    "no-section": ("failregex = ^<HOST>\n", [(1, "before the first [section]")]),
    "twice": ("[Definition]\nfailregex = a\nfailregex = b\n", [(3, "set twice")]),
    "no-include": ("[INCLUDES]\nbefore = gone.conf\n[Definition]\nfailregex = ^<HOST>\n", [(2, "gone.conf is not in")]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_faults_name_file_and_line(tmp_path: Path, name: str) -> None:
    text, expected = BROKEN[name]
    if text:
        (tmp_path / f"{name}.conf").write_text(text)
    found = faults(name, tmp_path)
    assert [(fault.line, want in fault.what) for fault, (_, want) in zip(found, expected, strict=True)] == [
        (line, True) for line, _ in expected
    ], found
    assert all(fault.file == (str(tmp_path / f"{name}.conf") if text else name) for fault in found)


def test_a_fault_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        inc__conf="[DEFAULT]\n\nbad = ^ok\n      ^(\n",
        a__conf="[INCLUDES]\nbefore = inc.conf\n[Definition]\nfailregex = %(bad)s\n",
    )
    (fault,) = faults("a", tmp_path)
    assert (fault.file, fault.line) == (str(tmp_path / "inc.conf"), 4)


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__conf="[INCLUDES]\nbefore = b.conf\n[Definition]\nfailregex = ^<HOST>\n",
        b__conf="[INCLUDES]\nbefore = a.conf\n[DEFAULT]\nx = 1\n",
    )
    assert len(loaded("a", tmp_path).rules) == 1


def test_many_includes_of_many_end(tmp_path: Path) -> None:
    for n in range(30):
        before = " \n  ".join(f"f{m}.conf" for m in range(30))
        (tmp_path / f"f{n}.conf").write_text(f"[INCLUDES]\nbefore = {before}\n[Definition]\nfailregex = ^<HOST>\n")
    (fault,) = faults("f0", tmp_path)
    assert "files are included" in fault.what


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_bytes(b"[Definition]\nfailregex = \xff\n")
    (fault,) = faults("a", tmp_path)
    assert (fault.line, fault.what) == (2, "is not UTF-8 text")


@pytest.mark.parametrize("spec", ["", "a[", "a[mode]", "a]b", "../etc/passwd", "a[x=1", "a b", "-a"])
def test_a_spec_that_is_none_names_where_it_was_written(tmp_path: Path, spec: str) -> None:
    write(tmp_path, a__conf="[Definition]\nfailregex = ^<HOST>\n")
    result = filterfile.load(spec, [tmp_path], file="jail.local", line=7)
    assert isinstance(result, tuple)
    assert [(fault.file, fault.line) for fault in result] == [("jail.local", 7)]


def test_shipped_filters_load_in_every_mode_and_an_unknown_mode_is_refused() -> None:
    for name in ("postfix", "sshd"):
        for mode in ("normal", "ddos", "extra", "aggressive"):
            assert loaded(f"{name}[mode={mode}]", SHIPPED).rules
        result = filterfile.load(f"{name}[mode=nosuch]", [SHIPPED], file="jail.local", line=3)
        assert isinstance(result, tuple)
        assert [(f.file, f.line, "but there is no `re-nosuch`" in f.what) for f in result] == [("jail.local", 3, True)]
