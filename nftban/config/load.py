"""From files to settings.

Takes the path of nftban.toml (conf.d/*.toml beside it are read after it, in the order of their names, and win);
gives `Loaded`: the settings, or every fault found, each with file, line and advice.
Guarantees: all faults of all files in one pass (of a file that is not TOML only the first, since nothing behind
it can be trusted); a list in a later file replaces the earlier one, tables are merged.  Does not: read filters or
jail.local files (daemon/assemble.py does), touch anything but the files named.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nftban.config import positions
from nftban.config.schema import FeedUse, Jail, Settings
from nftban.errors import ConfigError, Fault, PermissionNeededError

SYSTEM_CONFIG = Path("/etc/nftban/nftban.toml")


def shipped_rules() -> Path:
    """The folder `rules/` that came with the program: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "rules"
    return inside if inside.is_dir() else package.parent / "rules"


def default_config() -> Path:
    """The file to read when none is named: the system's, else the user's, else the shipped one."""
    try:
        if SYSTEM_CONFIG.is_file():
            return SYSTEM_CONFIG
        if os.geteuid() != 0:
            user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "nftban" / "nftban.toml"
            if user.is_file():
                return user
    except PermissionError as e:
        raise PermissionNeededError(
            f"{e.filename} is closed to this user", "run as root, or name a file with --config"
        ) from e
    except RuntimeError:
        pass  # a user without a home has no settings there
    return shipped_rules() / "nftban.toml"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the files they came from; `where` gives file and line of a setting by its path."""

    settings: Settings
    files: tuple[Path, ...]
    folder: Path
    where: dict[positions.Path, tuple[str, int]]

    def fault(self, path: positions.Path, what: str, advice: str = "") -> Fault:
        """A fault found later (a filter that does not exist, a zone that is dead) at a setting's place."""
        file, line = _place(self.where, path, str(self.files[0]) if self.files else "")
        return Fault(file, line, what, advice)

    @property
    def state_path(self) -> Path:
        return Path(self.settings.daemon.state) if self.settings.daemon.state else _state_folder() / "state.db"

    @property
    def socket_path(self) -> Path:
        return Path(self.settings.daemon.socket) if self.settings.daemon.socket else _run_folder() / "control.sock"

    @property
    def feeds_path(self) -> Path:
        return Path(self.settings.feeds.cache) if self.settings.feeds.cache else _cache_folder() / "feeds"


class UnfinishedConfigError(ConfigError):
    """Faults were found; `rest` are the settings without what is wrong, good for nothing but finding more faults."""

    def __init__(self, faults: tuple[Fault, ...], rest: Loaded) -> None:
        super().__init__(faults)
        self.rest = rest


def _is_service_user() -> bool:
    return os.geteuid() == 0 or os.environ.get("STATE_DIRECTORY") is not None


def _state_folder() -> Path:
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    if _is_service_user():
        return Path("/var/lib/nftban")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "nftban"


def _cache_folder() -> Path:
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given.split(":")[0])
    if _is_service_user():
        return Path("/var/cache/nftban")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nftban"


def _run_folder() -> Path:
    if given := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0])
    user = os.environ.get("XDG_RUNTIME_DIR")
    if _is_service_user() or not user:
        return Path("/run/nftban")
    return Path(user) / "nftban"


def load(config: Path | None = None) -> Loaded:
    """Reads and checks; raises ConfigError with every fault."""
    first = config if config is not None else default_config()
    folder = first.parent / "conf.d"
    files = [first, *sorted(folder.glob("*.toml"))]
    merged: dict[str, Any] = {}
    where: dict[positions.Path, tuple[str, int]] = {}
    faults: list[Fault] = []
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        faults.append(Fault(str(folder), 0, "cannot be read: Permission denied", "run as a user who may read it"))
    for file in files:
        try:
            text = file.read_bytes().decode("utf-8")
            tables = tomllib.loads(text)
        except OSError as e:
            faults.append(Fault(str(file), 0, f"cannot be read: {e.strerror}", "name another file with --config"))
        except UnicodeDecodeError as e:
            faults.append(Fault(str(file), 0, f"is not UTF-8 (byte {e.start})", "save it as UTF-8"))
        except tomllib.TOMLDecodeError as e:
            faults.append(_toml_fault(file, text, e))
        else:
            _merge(merged, tables)
            where |= {path: (str(file), line) for path, line in positions.positions(text).items()}
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as e:
        # What is missing may stand in a file that could not be read.
        found = [error for error in e.errors(include_url=False) if not (faults and error["type"] == "missing")]
        faults += [_fault(error, where, str(first)) for error in found]
        settings = _without(merged, [error["loc"] for error in e.errors()])
    loaded = Loaded(settings, tuple(files), first.parent, where)
    if faults:
        raise UnfinishedConfigError(in_order(faults), loaded)
    return loaded


def _without(merged: dict[str, Any], places: Iterable[positions.Path]) -> Settings:
    """The settings as they would be without what is wrong at these places."""
    taken = False
    for place in places:
        table: Any = merged
        holders: list[tuple[dict[str, Any], str]] = []
        for step in place:
            if not isinstance(table, dict) or not isinstance(step, str) or step not in table:
                break
            holders.append((table, step))
            table = table[step]
        if holders:
            holder, key = holders[-1]
            del holder[key]
            taken = True
    if not taken:
        return Settings()
    try:
        return Settings.model_validate(merged)
    except ValidationError as e:
        # What was taken away is missing now: its table goes too.
        return _without(merged, [error["loc"][:-1] for error in e.errors()])


def in_order(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Each fault once, by file and line."""
    return tuple(sorted(set(faults), key=lambda f: (f.file, f.line, f.what)))


def _merge(into: dict[str, Any], tables: dict[str, Any]) -> None:
    for key, value in tables.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _toml_fault(file: Path, text: str, error: tomllib.TOMLDecodeError) -> Fault:
    found = re.search(r"\s*\(at (?:line (\d+), column \d+|end of document)\)", str(error))
    line = int(found[1]) if found and found[1] else text.count("\n") + 1
    what = str(error)[: found.start()] if found else str(error)
    twice = what.startswith(("Cannot", "Duplicate"))
    advice = "a name may be given only once in a file" if twice else 'text goes in quotes: filter = "postfix"'
    return Fault(str(file), line, f"is not valid TOML: {what}", advice)


def _place(where: dict[positions.Path, tuple[str, int]], path: positions.Path, otherwise: str) -> tuple[str, int]:
    while path:
        if path in where:
            return where[path]
        path = path[:-1]
    return otherwise, 0


def _fault(error: Any, where: dict[positions.Path, tuple[str, int]], first: str) -> Fault:
    # pydantic names union members behind the field ("port", "int"): only what the admin wrote is a path.
    path: positions.Path = tuple(error["loc"])
    file, line = _place(where, path, first)
    while path and path not in where and error["type"] not in ("missing", "extra_forbidden"):
        path = path[:-1]
    name = ".".join(map(str, path)) or "settings"
    kind, given = error["type"], error["input"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return Fault(file, line, f"{name}: there is no such setting", _nearest(path))
    if kind == "missing":
        return Fault(file, line, f"{name} is missing", _example(str(path[-1])))
    if kind == "value_error":
        return Fault(file, line, f"{name}: {context['error']}")
    if kind in ("greater_than_equal", "less_than_equal"):
        side, bound = ("least", context["ge"]) if "ge" in context else ("most", context["le"])
        return Fault(file, line, f"{name} = {given!r}: it must be at {side} {bound:g}")
    if kind == "string_pattern_mismatch":
        return Fault(file, line, f"{name} = {given!r}: small letters, digits and _, beginning with a letter")
    if kind == "string_too_short":
        return Fault(file, line, f"{name} is empty", _example(str(path[-1])))
    wanted = {
        "int_type": "a whole number, without quotes",
        "float_type": "a number, without quotes",
        "bool_type": "true or false, without quotes",
        "string_type": "text in quotes",
        "tuple_type": 'a list: ["…", "…"]',
        "dict_type": "a table: [name] and lines below it",
        "model_type": "a table: [name] and lines below it",
    }.get(kind)
    return Fault(file, line, f"{name} = {given!r}: " + (f"it must be {wanted}" if wanted else str(error["msg"])))


def _example(field: str) -> str:
    return {
        "filter": 'write for example filter = "postfix"',
        "logpath": 'write for example logpath = "/var/log/mail.log"',
    }.get(field, "")


def _nearest(path: positions.Path) -> str:
    """Advice for an unknown setting: the most similar name known at that place."""
    model: Any = Settings
    for step in path[:-1]:
        if model is None:
            break
        known = model.model_fields.get(step)
        if known is not None:
            model = {"jail": Jail, "feed": FeedUse}.get(str(step), known.annotation)
        elif model not in (Jail, FeedUse):
            model = None
    fields = list(getattr(model, "model_fields", {}))
    near = difflib.get_close_matches(str(path[-1]), fields, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known here: {', '.join(fields)}" if fields else ""
