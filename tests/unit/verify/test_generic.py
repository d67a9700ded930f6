"""Names of home connections, of rented machines and of mail servers, told apart; how often wrongly, is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nftban
from nftban.prefixes import Prefix
from nftban.records import NameKind
from nftban.verify.generic import kind_of, name_kind, parse_words

WORDS = parse_words((Path(nftban.__file__).parents[1] / "rules" / "names.toml").read_text())

# ADDRESS NAME, in the forms that networks use.
GENERIC = """
203.0.113.77 p-203-0-113-77.dsl.isp.example
203.0.113.77 77.113.0.203.dynamic.isp.example
203.0.113.77 pcb00714d.dip0.t-ipconnect.example
203.0.113.77 cpe-203-0-113-77.nyc.res.isp.example
203.0.113.77 c-203-0-113-77.hsd1.ma.isp.example
203.0.113.77 pool-203-0-113-77.bstnma.fios.isp.example
203.0.113.77 ip203-0-113-77.oc.oc.isp.example
203.0.113.77 203.0.113.77.dyn.user.isp.example
203.0.113.77 ppp-113-77.adsl.isp.example
203.0.113.77 host77-113-dynamic.0-203-r.retail.isp.example
203.0.113.77 abo-77-113-0-203.mrs.modulonet.example
203.0.113.77 203-0-113-77.rev.isp.example
203.0.113.77 203000113077.ctinets.example
203.0.113.77 adsl-203-0-113-77.dsl.pltn13.isp.example
203.0.113.77 dslb-203-000-113-077.203.000.pools.isp.example
203.0.113.77 x4d7100cb.dyn.isp.example
203.0.113.77 cable-203-0-113-77.zeelandnet.example
203.0.113.77 catv-203-0-113-77.catv.broadband.isp.example
203.0.113.77 113-77.dynamic.isp.example
203.0.113.77 dynamic-ip-203-0-113-77.cable.isp.example
203.0.113.77 77-113-0-203.fibertel.isp.example
203.0.113.77 host-203-0-113-77.customer.isp.example
203.0.113.77 ipcb00714d.dynamic.kabel-deutschland.example
203.0.113.77 dhcp-203-0-113-77.chello.example
203.0.113.77 user-113-77.wireless.isp.example
203.0.113.77 lte-77.mobile.operator.example
203.0.113.77 3405803853.pool.isp.example
203.0.113.77 d-77-113-ftth.isp.example
203.0.113.77 node-1xq.pool-203-0.dynamic.totisp.example
203.0.113.77 broadband-203-0-113-77.ip.moscow.isp.example
203.0.113.77 ppp77.pool203-0-113.dial.isp.example
203.0.113.77 203-0-113-77.unused-addr.isp.example
203.0.113.77 modemcable077.113-0-203.mc.isp.example
203.0.113.77 gpon-113-77.ftth.isp.example
203.0.113.77 cgn-203-0-113-77.mobile.isp.example
2001:db8:1:2:a8bb:ccff:fedd:ee01 2001-db8-1-2-a8bb-ccff-fedd-ee01.dyn.isp.example
2001:db8:1:2:a8bb:ccff:fedd:ee01 p20010db800010002a8bbccfffeddee01.dip0.isp.example
2001:db8:1:2:a8bb:ccff:fedd:ee01 1.0.e.e.d.d.e.f.f.f.c.c.b.b.8.a.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.isp.example
2001:db8::7 2001-db8--7.cable.isp.example
"""

NAMED = """
203.0.113.25 mail.company.example
203.0.113.25 mx1.company.example
203.0.113.25 mx-113-25.company.example
203.0.113.25 smtp-out-25.provider.example
203.0.113.25 mail-203-0-113-25.bulk.provider.example
203.0.113.25 a113-25.smtp-out.provider.example
203.0.113.25 mout.kundenserver.example
203.0.113.25 mail-lf1-f25.search.example
203.0.113.25 mail-am6eur05on2025.outbound.protection.example
203.0.113.25 o25.email.shop.example
203.0.113.25 mta-203-0-113-25.sparkpost.example
203.0.113.25 static-203-0-113-25.business.isp.example
203.0.113.25 host.dyndns.example
203.0.113.25 www.cable.example
203.0.113.25 cable.co.uk
203.0.113.25 mail.dsl.co.uk
203.0.113.25 fiber.example
203.0.113.25 mailpool.hospital.example
203.0.113.25 relay1.broadband-company.example
203.0.113.25 server25.hosting.example
203.0.113.25 ns1.university.example
203.0.113.25 lists.debian.example
203.0.113.25 home.family.example
203.0.113.25 users.community.example
203.0.113.25 vps25.rented.example
203.0.113.25 out-25.smtp.github.example
203.0.113.25 bounce-113-25.newsletter.example
203.0.113.25 gateway.bank.example
203.0.113.25 exchange01.council.gov.uk
203.0.113.25 pps.reinject.example
203.0.113.25 esa4.hc25-113.iphmx.example
203.0.113.25 mobile.operator.example
203.0.113.25 fwd25.forward.example
203.0.113.25 nat.office.example
203.0.113.25 access.lab.example
203.0.113.25 clients.lawyer.example
203.0.113.25 relay-25.cust.provider.example
203.0.113.25 fixed-203-0-113-25.isp.example
203.0.113.25 www25.113.shop.example
2001:db8:1:2::25 mail.company.example
2001:db8:1:2::25 mx6-2.company.example
"""

CLOUD = """
203.0.113.99 ec2-203-0-113-99.eu-central-1.compute.amazonaws.com
203.0.113.99 99.113.0.203.bc.googleusercontent.com
203.0.113.99 static.99.113.0.203.clients.your-server.de
203.0.113.99 vps-1a2b3c4d.vps.ovh.net
203.0.113.99 li1234-99.members.linode.com
203.0.113.99 203.0.113.99.vultrusercontent.com
203.0.113.99 vmi123456.contaboserver.net
203.0.113.99 203-0-113-99.ip.linodeusercontent.com
"""


@pytest.mark.parametrize(
    ("kind", "listed"), [(NameKind.GENERIC, GENERIC), (NameKind.NAMED, NAMED), (NameKind.CLOUD, CLOUD)]
)
def test_names_told_apart(kind: NameKind, listed: str) -> None:
    """docs/verification.md gives these counts."""
    wrong = []
    for line in listed.split("\n")[1:-1]:
        address, name = line.split()
        found = name_kind(name, Prefix.parse(address), WORDS)
        if found is not kind:
            wrong.append(f"{name}: {found}")
    assert not wrong


def test_another_address_in_the_name_is_not_its_own() -> None:
    assert name_kind("host-198-51-100-9.isp.example", Prefix.parse("203.0.113.77"), WORDS) is NameKind.NAMED


def test_one_chosen_name_is_enough() -> None:
    address = Prefix.parse("203.0.113.77")
    generic = "p-203-0-113-77.dsl.isp.example"
    assert kind_of([generic], address, WORDS) is NameKind.GENERIC
    assert kind_of([generic, "mail.company.example"], address, WORDS) is NameKind.NAMED
    assert kind_of([], address, WORDS) is None


@given(st.text(max_size=300), st.integers(0, 2**32 - 1), st.sampled_from([4, 6]))
def test_any_text_is_answered(name: str, first: int, family: int) -> None:
    address = Prefix(family, first, 32 if family == 4 else 128)
    assert name_kind(name, address, WORDS) in NameKind


@pytest.mark.parametrize("text", ['access = ["a"]', "access = 1\nfixed = []\ncloud = []", "access = [", "more = 1"])
def test_faulty_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_words(text)
