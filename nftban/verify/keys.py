"""Account keys out of text: what is logged, stored or shown never holds one.

Some DNSBLs are asked with the customer's key as a label of every name: `KEY.zen.dq.spamhaus.net`.  A mail server that
asks them writes such names into its log, and so the keys of zones that are not configured here come to us as well.
Takes text; gives the same with the names of keyed zones as everybody may see them.
Guarantees: of a configured zone, and of any zone whose operator is known to use keys, the key goes, in either case of
letters, whatever stands around it; all other text stays as it is.  Does not: know keys of operators without a data
file (rules/dnsbl) whose zones are not configured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from nftban.verify.zones import KEY_LENGTH, Provider, Zone

_KEY = r"[0-9A-Za-z_-]{8,63}"
_FIRST_LABEL = re.compile(rf"(?<![\w.-])[0-9A-Za-z_-]{{{KEY_LENGTH},63}}\.(?=[\w-]+\.)")


def hider(zones: Iterable[Zone], providers: Iterable[Provider]) -> Callable[[str], str]:
    """A function that takes the keys out of a text, quick where there is none."""
    own = {zone.name.lower(): zone.display for zone in zones if zone.keyed}
    keyed = {name for provider in providers for name in provider.keyed}
    if not own and not keyed:
        return lambda text: text
    names = [re.escape(name) for name in sorted(own, key=len, reverse=True)]
    known = [rf"(?<![\w-]){_KEY}\.(?=(?:{'|'.join(map(re.escape, sorted(keyed)))})(?![\w-]))"] if keyed else []
    pattern = re.compile("|".join([*names, *known]), re.IGNORECASE)
    hints = tuple({*own.values(), *keyed})

    def hide(text: str) -> str:
        lowered = text.lower()
        if not any(hint in lowered for hint in hints):
            return text
        return pattern.sub(lambda found: own.get(found[0].lower(), ""), text)

    return hide


def without_key(entry: str) -> str:
    """An entry of the settings' list of zones without the labels that are taken for keys."""
    return _FIRST_LABEL.sub("", entry)
