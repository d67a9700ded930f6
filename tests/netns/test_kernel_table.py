"""The table as nft(8) sees it: made over netlink, loaded from the snippet, both, twice; what is not ours is noticed."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nftban.errors import EXIT_NOT_PERMITTED, KernelError, PermissionNeededError
from nftban.kernel.layout import DEFAULT, Layout, Scope, ruleset_text
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import Prefix
from nftban.records import Delta

pytestmark = pytest.mark.usefixtures("netns")

SNIPPET = Path(__file__).parents[2] / "rules" / "nftban.nft"
PR_CAPBSET_DROP, CAP_NET_ADMIN = 24, 12
BANS = ("192.0.2.7", "198.51.100.0/24", "203.0.112.0/23", "2001:db8::7", "2001:db8:1::/64", "2001:db8:8000::/33")


def nft(*arguments: str) -> str:
    return subprocess.run(["nft", *arguments], check=True, capture_output=True, text=True).stdout


def delta(layout: Layout = DEFAULT, scope: str = "all") -> Delta:
    until = time.time() + 3600
    return Delta(add=tuple(sorted(layout.place(Prefix.parse(ban), scope, until) for ban in BANS)))


def test_the_snippet_and_netlink_make_the_same_table() -> None:
    nft("-f", str(SNIPPET))
    from_snippet = nft("-s", "list", "ruleset")
    with NetlinkKernel(DEFAULT) as kernel:
        assert kernel.drift() == []
        kernel.remove()
        assert nft("list", "ruleset") == ""
        kernel.create()
        assert kernel.drift() == []
    assert nft("-s", "list", "ruleset") == from_snippet


def test_the_snippet_loaded_again_loses_no_ban() -> None:
    nft("-f", str(SNIPPET))
    with NetlinkKernel(DEFAULT) as kernel:
        assert kernel.apply(delta(), time.time()) == []
        nft("-f", str(SNIPPET))
        nft("-f", str(SNIPPET))
        assert kernel.present(time.time()) == list(delta().add)
        assert kernel.drift() == []


def test_create_again_loses_no_ban_and_doubles_no_rule() -> None:
    with NetlinkKernel(DEFAULT) as kernel:
        kernel.create()
        listed = nft("-s", "list", "ruleset")
        assert kernel.apply(delta(scope="ssh"), time.time()) == []
        kernel.create()
        assert kernel.present(time.time()) == list(delta(scope="ssh").add)
        kernel.apply(Delta(delete=delta(scope="ssh").add), time.time())
        assert nft("-s", "list", "ruleset") == listed


def test_create_completes_a_table_from_an_older_configuration() -> None:
    older = Layout(scopes=(Scope("mail", (25, 2525)),))
    newer = Layout(scopes=(Scope("mail", (25, 465)), Scope("ssh", (22,))))
    with NetlinkKernel(older) as kernel:
        kernel.create()
        assert kernel.apply(delta(older, "mail"), time.time()) == []
    with NetlinkKernel(newer) as kernel:
        assert "set ports_mail holds the ports [25, 2525]" in kernel.drift()
        assert "chain scope_ssh is missing" in kernel.drift()
        kernel.create()
        assert kernel.drift() == []
        assert kernel.present(time.time()) == list(delta(older, "mail").add)


@pytest.mark.parametrize(
    ("tampering", "noticed"),
    [
        ("flush ruleset", "there is no table inet nftban"),
        ("delete table inet nftban", "there is no table inet nftban"),
        ("flush chain inet nftban prerouting", "the rules of chain prerouting are not ours"),
        ("insert rule inet nftban scope_ssh accept", "the rules of chain scope_ssh are not ours"),
        ("add table inet nftban { flags dormant; }", "the table is dormant"),
        ("delete element inet nftban ports_ssh { 22 }", "set ports_ssh holds the ports []"),
    ],
)
def test_tampering_is_noticed_and_mended(tampering: str, noticed: str) -> None:
    with NetlinkKernel(DEFAULT) as kernel:
        kernel.create()
        nft(tampering)
        assert kernel.drift() == [noticed]
        kernel.create()
        assert kernel.drift() == []


def test_an_inverted_look_up_is_noticed() -> None:
    with NetlinkKernel(Layout()) as kernel:
        kernel.create()
        nft("flush chain inet nftban prerouting")
        rules = ruleset_text(Layout()).replace("ip saddr @ban4_all drop", "ip saddr != @ban4_all drop")
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        assert kernel.drift() == ["the rules of chain prerouting are not ours"]


def test_other_tables_are_left_alone() -> None:
    nft("add table inet admin { chain input { type filter hook input priority 0; tcp dport 22 accept; }; }")
    nft("add table ip nftban { set ban4_all { type ipv4_addr; elements = { 192.0.2.1 }; }; }")
    before = nft("list", "ruleset")
    with NetlinkKernel(DEFAULT) as kernel:
        kernel.create()
        assert kernel.drift() == []
        assert kernel.present(time.time()) == []
        kernel.remove()
    assert nft("list", "ruleset") == before


def test_a_table_that_belongs_to_a_process_is_an_error_and_is_left_alone() -> None:
    owner = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdin
    assert owner.stdout
    with owner:
        owner.stdin.write("add table inet nftban { flags owner; set ban4_all { type ipv6_addr; }; }\nlist ruleset\n")
        owner.stdin.flush()
        while "ban4_all" not in owner.stdout.readline():
            pass
        before = nft("list", "ruleset")
        with NetlinkKernel(DEFAULT) as kernel:
            # The kernel says EPERM, as it does to whoever lacks the privilege; that must not be the advice.
            with pytest.raises(KernelError, match="another program owns the table inet nftban") as refused:
                kernel.create()
            assert refused.value.errno == errno.EPERM and "[kernel] table" in refused.value.advice
        assert nft("list", "ruleset") == before
        owner.stdin.write("quit\n")


def test_without_cap_net_admin_every_call_says_so() -> None:
    with NetlinkKernel(DEFAULT) as kernel:
        kernel.create()
        child = os.fork()
        if child == 0:
            os._exit(_exit_code_without_capability())
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == EXIT_NOT_PERMITTED
        assert kernel.drift() == []


def _exit_code_without_capability() -> int:
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0)
    os.setresuid(65534, 65534, 65534)
    codes = set()
    with NetlinkKernel(DEFAULT) as kernel:
        address = Prefix.parse("192.0.2.7")
        now = time.time()
        for call in (
            kernel.create,
            kernel.drift,
            kernel.remove,
            lambda: kernel.present(now),
            lambda: kernel.find(address, now),
            lambda: kernel.apply(delta(), now),
        ):
            try:
                call()
                codes.add(0)
            except PermissionNeededError as e:
                codes.add(e.exit_code if "CAP_NET_ADMIN" in e.advice else 1)
    return codes.pop() if len(codes) == 1 else 1


def test_a_user_namespace_of_our_own_is_enough() -> None:
    script = "\n".join(
        (
            "import time",
            "from nftban.kernel.layout import DEFAULT",
            "from nftban.kernel.netlink import NetlinkKernel",
            "from nftban.records import Delta, Element",
            "now, kernel = time.time(), NetlinkKernel(DEFAULT)",
            "kernel.create()",
            "elements = tuple(Element('ban4_all', i, i, now + 100) for i in range(20000))",
            "assert kernel.apply(Delta(add=elements), now) == [] == kernel.drift()",
            "assert kernel.present(now) == list(elements)",
        )
    )
    if subprocess.run(["unshare", "--map-root-user", "--net", "true"], capture_output=True).returncode:
        pytest.skip("this kernel allows no user namespaces here")
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-c", script]
    root = str(Path(__file__).parents[2])
    child = subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True)
    assert (child.returncode, child.stderr) == (0, "")
