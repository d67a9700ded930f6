"""`make bench`: what nftban costs beside what it replaces, measured in a network namespace of its own.

rows.py: the table of what is measured; measures.py: what a row is made of, and Debian's nft(8) as the peer; elements.py
and packets.py: the measurements; __main__.py: runs and prints them.  A new measurement is a function in the table.
"""
