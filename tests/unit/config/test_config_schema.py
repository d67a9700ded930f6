"""The checked settings: every default is one the daemon can run with, nothing is guessed, nothing changes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from nftban.config.schema import Defaults, FeedUse, Jail, Settings
from nftban.prefixes import Prefix

TABLES = {
    name: field.annotation for name, field in Settings.model_fields.items() if name not in ("jail", "feed", "scopes")
}


def as_written(value: Any) -> Any:
    """A default as TOML would hold it."""
    if isinstance(value, tuple):
        return [as_written(v) for v in value]
    return str(value) if isinstance(value, Prefix) else value


@pytest.mark.parametrize("name", sorted(TABLES))
def test_writing_out_the_defaults_gives_the_defaults(name: str) -> None:
    table = getattr(Settings(), name)
    written = {key: as_written(value) for key, value in table if value is not None}
    assert getattr(Settings.model_validate({name: written}), name) == table


@pytest.mark.parametrize("name", [*sorted(TABLES), "jail", "feed"])
def test_every_setting_is_described(name: str) -> None:
    named: dict[str, type[BaseModel]] = {"jail": Jail, "feed": FeedUse}
    model = named.get(name) or TABLES[name]
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    for key, field in model.model_fields.items():
        assert field.description, f"{name}.{key}"


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.defaults.maxretry = 1  # type: ignore[misc]


def test_a_jail_may_set_whatever_the_defaults_hold_for_jails() -> None:
    of_the_machine = {"max_prefix4", "max_prefix6", "count4", "count6", "offenders"}
    assert set(Defaults.model_fields) - of_the_machine <= set(Jail.model_fields)
    jail = Jail.model_validate({"filter": "f", "logpath": "l"})
    for name in set(Defaults.model_fields) - of_the_machine:
        assert getattr(jail, name) is None
    assert jail.model_fields_set == {"filter", "logpath"}


def test_a_permanent_ban_is_told_from_none_given() -> None:
    given = Jail.model_validate({"filter": "f", "logpath": "l", "bantime": "permanent"})
    assert given.bantime is None
    assert "bantime" in given.model_fields_set
    assert Defaults.model_validate({"bantime": "permanent"}).bantime is None
    assert Defaults().bantime == 3600.0


@pytest.mark.parametrize("written", ["all", "mail", 25, ["smtp", 465], "smtp,submission", "6000:6010"])
def test_a_scope_is_a_word_a_port_or_a_list(written: Any) -> None:
    jail = Jail.model_validate({"filter": "f", "logpath": ["a", "b"], "port": written})
    assert jail.port == (tuple(written) if isinstance(written, list) else written)
    assert jail.logpath == ("a", "b")


@pytest.mark.parametrize("name", ["a", "A-1_b", "x" * 64, "0", "-"])
def test_names_of_jails(name: str) -> None:
    settings = Settings.model_validate({"jail": {name: {"filter": "f", "logpath": "l"}}})
    assert list(settings.jail) == [name]


@pytest.mark.parametrize("name", ["a", "web-1_b", "x" * 32])
def test_names_of_scopes(name: str) -> None:
    assert Settings.model_validate({"scopes": {name: [25]}}).scopes == {name: (25,)}


@pytest.mark.parametrize("name", ["A", "1a", "-", "x" * 33])
def test_names_of_scopes_become_names_of_sets(name: str) -> None:
    with pytest.raises(ValidationError, match="a scope's name has small letters"):
        Settings.model_validate({"scopes": {name: [25]}})


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a.b", "a/b", "a\n", "ä", "../x", "a\x00"])
def test_names_that_would_be_trouble_in_a_set_or_a_file_name(name: str) -> None:
    for written in ({"jail": {name: {"filter": "f", "logpath": "l"}}}, {"scopes": {name: [25]}}):
        with pytest.raises(ValidationError, match=r"name has (small )?letters"):
            Settings.model_validate(written)


def test_only_jails_may_be_named_all() -> None:
    Settings.model_validate({"jail": {"all": {"filter": "f", "logpath": "l"}}})
    with pytest.raises(ValidationError, match="built in"):
        Settings.model_validate({"scopes": {"all": [25]}})


@pytest.mark.parametrize("name", ["nftban", "a", "x" * 31, "a_1"])
def test_table_names(name: str) -> None:
    assert Settings.model_validate({"kernel": {"table": name}}).kernel.table == name


@pytest.mark.parametrize("name", ["", "Nft", "1a", "_a", "a-b", "a\n", "a;flush ruleset", "x" * 32, "ä"])
def test_bad_table_names(name: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"kernel": {"table": name}})
