"""What settings would have done to logs that were written already: `nftban replay`.

    log files --logs--> chunks --search--> found --(meaning, decide)--> bans --traffic--> what they would have stopped

`run.py` puts these together; `search`, `decide`, `traffic` and `sweep` decide, do no I/O and know no clock: time is the
log's.  Screen, matcher, windows and judge are the daemon's own.
"""
