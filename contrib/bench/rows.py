"""The table of measurements: to add one, write a function (Scale -> rows) and name it here."""

from __future__ import annotations

from bench.detection import counting, line_to_offence, many_filters, matching, start
from bench.dns import lookups, offender
from bench.elements import change, check, million_addresses, million_prefixes, one_ban, restore
from bench.feeds import feed_kernel, feed_lookup, feed_read, feed_replaced, feed_zone
from bench.measures import Measurement
from bench.packets import no_gap, packet_path
from bench.replay import replayed
from bench.storm import storm
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
    storm,
    matching,
    many_filters,
    line_to_offence,
    start,
    counting,
    replayed,
    lookups,
    offender,
    feed_read,
    feed_zone,
    feed_lookup,
    feed_kernel,
    feed_replaced,
)
