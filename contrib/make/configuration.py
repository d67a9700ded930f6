"""Prints docs/configuration.md from the schema, so that it cannot say what the program does not.

Takes nothing; gives Markdown on standard output.  tests/unit/config/test_documentation.py holds the file equal to it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from nftban.config.schema import Defaults, FeedUse, Jail, Settings
from nftban.config.words import in_words

HEAD = """\
# Configuration

`/etc/nftban/nftban.toml`, or the file given with `--config`; `conf.d/*.toml` beside it is read after it, in the order
of names, and wins: tables are merged, a list replaces the earlier one. Without a file the shipped
[rules/nftban.toml](../rules/nftban.toml) is used; the defaults below are what holds where a file says nothing.

`nftban config check` names every fault with file, line and advice and exits 78; `nftban config show` prints what is in
force. Durations are `"10m"`, `"1h30m"`, `"2d"` or a number of seconds.

Beside it are read: `jail.local` and `jail.d/*` (fail2ban's jails, as they are), `filter.d/` and `rules/filters/`
(filters, before the shipped ones and those of /etc/fail2ban/filter.d), `rules/dnsbl/` (what is known of DNSBLs; a file
masks the shipped one of the same name), `rules/feeds/` (list feeds, likewise).
"""

ORDER = {
    "daemon": "",
    "kernel": "",
    "allow": (
        "Loopback, link-local, own addresses, gateways, resolvers and live SSH sessions are protected without being "
        "named."
    ),
    "dns": "",
    "dnsbl": (
        "A zone is written as in postscreen(8): `zen.spamhaus.org=127.0.0.[2..4;9]*5` adds 5 points for these codes, a "
        "negative number takes points away. Without `=codes` the codes count that the zone's data file marks."
    ),
    "reverify": "",
    "feeds": "Lists that are fetched; which there are, `nftban feed list` says. See [feeds.md](feeds.md).",
    "notify": "Who is told what, and when: see [notifications.md](notifications.md).",
    "defaults": "Hold for every jail that does not say otherwise.",
}


def default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return '`"off"`'
    if value is None:
        return '`"off"`'
    if isinstance(value, float) and value >= 60 and value % 60 == 0:
        return f'`"{in_words(value)}"`'
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:g}`"


def rows(model: type[BaseModel], inherited: bool = False) -> list[str]:
    def row(name: str, field: FieldInfo) -> str:
        in_defaults = inherited and name in Defaults.model_fields
        return f"| `{name}` | {'[defaults]' if in_defaults else default(field.default)} | {field.description} |"

    return ["| setting | default | meaning |", "|---|---|---|", *(row(n, f) for n, f in model.model_fields.items())]


def main() -> None:
    parts = [HEAD]
    for name, words in ORDER.items():
        model = Settings.model_fields[name].annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        parts.append(f"## [{name}]\n" + (f"\n{words}\n" if words else ""))
        parts.append("\n".join(rows(model)) + "\n")
    parts.append(
        "## [scopes]\n\n`name = [ports]`: a group of TCP ports that jails and `nftban ban --scope` can name. "
        '"all" is built in and covers every packet.\n'
    )
    parts.append("## [jail.NAME]\n\n" + "\n".join(rows(Jail, inherited=True)) + "\n")
    parts.append("## [feed.NAME]\n\n" + "\n".join(rows(FeedUse)) + "\n")
    print("\n".join(parts), end="")


if __name__ == "__main__":
    main()
