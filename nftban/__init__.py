"""nftban: an nftables set manager with DNSBL verification and feed sync.

The way of a datum is drawn in docs/architecture.md; records.py names each stage's type.
"""

__version__ = "0.1.0"
