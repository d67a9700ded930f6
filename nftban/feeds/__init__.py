"""List feeds: from a file or an address on the net to a set of ranges that may be believed.

    chunks of bytes --formats--> Parsed --guards--> Ranges, or a Refusal

definitions.py reads rules/feeds/*.toml; fetch.py, transfer.py get a feed's bytes; copies.py keeps the last good ones
on disk; sync.py says when each is due and puts the stages together; lookup.py asks them about addresses.
daemon/feeds.py turns them into what the kernel is to hold.
"""
