"""Settings as TOML, as plain values, as a JSON schema.

Takes checked settings; gives text that `config.load` reads back as equal settings, each value with the file and line
it was set at (none: it is the default).  The schema says what may be *written* ("10m", a single path for a list),
which is more than what the checked values are.
Guarantees: load(toml(loaded)).settings == loaded.settings.  Does not: read or check files.
Source: https://toml.io/en/v1.0.0; JSON Schema 2020-12.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from nftban.config.load import Loaded
from nftban.config.schema import Settings
from nftban.config.words import in_words, seconds
from nftban.prefixes import Prefix
from nftban.report.text import shown

Plain = dict[str, Any]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_NUMBERS = {"bantime_factor"}
"""The only floating-point settings that are no durations."""


def plain(model: BaseModel) -> Plain:
    """The settings as JSON's types, as an admin would write them; what is not set is left out."""
    told: Plain = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if value is not None:
            told[name] = _plain_value(name, value)
        elif name == "bantime" and name in model.model_fields_set:
            told[name] = "permanent"
    return told


def _plain_value(name: str, value: Any) -> Any:
    if isinstance(value, BaseModel):
        return plain(value)
    if isinstance(value, dict):
        return {key: _plain_value(key, entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return [_plain_value(name, entry) for entry in value]
    if isinstance(value, Prefix):
        return str(value)
    if isinstance(value, float) and name not in _NUMBERS:
        words = in_words(value)
        return words if value >= 1 and seconds(words) == value else value
    return value


def toml(loaded: Loaded) -> str:
    """Tables in the order of the schema, a line per setting."""
    return "\n\n".join(_tables(loaded, (), plain(loaded.settings))) + "\n"


def _tables(loaded: Loaded, path: tuple[str, ...], table: Plain) -> list[str]:
    lines = [f"[{'.'.join(map(toml_key, path))}]"]
    inner: list[str] = []
    for name, value in table.items():
        if isinstance(value, dict):
            inner += _tables(loaded, (*path, name), value)
        else:
            lines.append(f"{toml_key(name)} = {toml_value(value)}{_origin(loaded, (*path, name))}")
    return ["\n".join(lines), *inner] if len(lines) > 1 else inner


def toml_key(name: str) -> str:
    """A key, quoted where it must be."""
    return name if _BARE_KEY.fullmatch(name) else toml_value(name)


def toml_value(value: Any) -> str:
    """A number, truth value, text or list of such."""
    if isinstance(value, list):
        joined = ", ".join(map(toml_value, value))
        one_line = f"[{joined}]"
        if len(one_line) <= 80:
            return one_line
        return "[\n" + "".join(f"  {toml_value(entry)},\n" for entry in value) + "]"
    # A TOML basic string knows JSON's escapes, but no surrogate pairs.
    return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in json.dumps(value, ensure_ascii=False))


def _origin(loaded: Loaded, path: tuple[str, ...]) -> str:
    if path not in loaded.where:
        return ""
    file, line = loaded.where[path]
    return f"  # {shown(file)}:{line}"


_DURATION = [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "examples": ["10m", "1h30m", "2d"]}]
_PORT = [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "examples": ["smtp", "25,465"]}]
_WRITTEN: dict[str, Plain] = {
    "seconds": {"anyOf": _DURATION},
    "ban_seconds": {"anyOf": [*_DURATION, {"const": "permanent"}]},
    "port_list": {"anyOf": [*_PORT, {"type": "array", "items": {"anyOf": _PORT}}]},
    "_strings": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "_prefix": {"type": "string", "examples": ["192.0.2.7", "2001:db8::/32"]},
}
"""What each validator of config.schema accepts, by its name."""


class _AsWritten(GenerateJsonSchema):
    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> dict[str, Any]:
        written = _WRITTEN.get(getattr(schema["function"]["function"], "__name__", ""))
        return dict(written) if written is not None else super().function_before_schema(schema)


def json_schema() -> Plain:
    """The schema of nftban.toml."""
    schema = Settings.model_json_schema(schema_generator=_AsWritten)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "nftban.toml"}
