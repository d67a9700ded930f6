"""The table of measurements: to add one, write a function (Scale -> rows) and name it here."""

from __future__ import annotations

from bench.elements import change, check, million_addresses, million_prefixes, one_ban, restore
from bench.measures import Measurement
from bench.packets import no_gap, packet_path
from bench.whole import daemons_ban, line_to_entry, restart

MEASUREMENTS: tuple[Measurement, ...] = (
    one_ban,
    million_addresses,
    million_prefixes,
    change,
    no_gap,
    check,
    restore,
    packet_path,
    daemons_ban,
    line_to_entry,
    restart,
)
