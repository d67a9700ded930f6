"""nftban config and ruleset: faults with their places, settings that read back as they are, a schema that tells the
truth, the table as text."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nftban.cli.app import main
from nftban.config.load import load, shipped_rules
from nftban.report.settings import json_schema, toml

FULL = r"""
[daemon]
group = "mail"
socket = "/run/nftban/\u202e \"quoted\" \u007f \U0001F600.sock"
[allow]
prefixes = ["192.0.2.0/24", "2001:db8::/32"]
[dns]
deadline = 0.25
[dnsbl]
zones = ["zen.spamhaus.org=127.0.0.[2..9;30]*4", "bl.example.net", "list.dnswl.org=127.0.[2..9].[2;3]*-4", "a.example"]
[reverify]
every = 100
[scopes]
odd = "25,6000:6003"
[defaults]
bantime = "permanent"
findtime = "3d4h5m6s"
bantime_factor = 1.5
[jail.one]
filter = "postfix[mode=aggressive]"
logpath = ["/var/log/mail.log", "/var/log/mail.log.1"]
bantime = "permanent"
port = ["smtp", 587]
[jail.two]
filter = "sshd"
logpath = "/var/log/auth.log"
findtime = 90
port = 22
enabled = false
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.mark.parametrize(
    "text", ["", FULL, (shipped_rules() / "nftban.toml").read_text()], ids=["none", "full", "ours"]
)
def test_what_show_prints_reads_back_as_the_same_settings(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text(text)
    code, out, err = run(capsys, "-c", str(file), "config", "show")
    assert (code, err) == (0, "")
    again = tmp_path / "again.toml"
    again.write_text(out)
    first, second = load(file), load(again)
    assert second.settings == first.settings
    assert [jail.model_fields_set >= {"bantime"} for jail in second.settings.jail.values()] == [
        jail.model_fields_set >= {"bantime"} for jail in first.settings.jail.values()
    ]
    assert all(c.isprintable() or c == "\n" for c in out)


def test_show_tells_where_each_setting_was_written(tmp_path: Path) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text("[defaults]\nmaxretry = 3\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "local.toml").write_text('\n[defaults]\nfindtime = "20m"\n')
    text = toml(load(file))
    assert f"maxretry = 3  # {file}:2\n" in text
    assert f'findtime = "20m"  # {tmp_path}/conf.d/local.toml:3\n' in text
    assert 'bantime = "1h"\n' in text


def test_show_as_json_is_what_the_toml_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text(FULL)
    _, as_toml, _ = run(capsys, "-c", str(file), "config", "show")
    _, as_json, _ = run(capsys, "-c", str(file), "config", "show", "--json")
    assert {k: v for k, v in json.loads(as_json).items() if v} == tomllib.loads(as_toml)


FAULTY = """\
[defaults]
maxretry = 0
findtime = "soon"
bantim = "1h"
[allow]
prefixes = ["192.0.2.300"]
[jail.postfix]
logpath = "/var/log/mail.log"
"""


def test_check_tells_every_fault_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text(FAULTY)
    code, out, err = run(capsys, "config", "check", "-c", str(file))
    assert (code, out) == (78, "")
    assert "5 faults in the configuration" in err
    for line in (2, 3, 4, 6, 7):
        assert f"{file}:{line}: " in err
    assert "did you mean bantime?" in err
    code, out, err = run(capsys, "config", "check", "-c", str(file), "--json")
    assert (code, err) == (78, "")
    told = json.loads(out)
    assert told["ok"] is False
    assert [fault["line"] for fault in told["faults"]] == [2, 3, 4, 6, 7]
    assert {"file", "line", "what", "advice"} == set(told["faults"][0])


def test_check_also_finds_what_only_shows_when_all_is_put_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text('[jail.a]\nfilter = "no-such-filter"\nlogpath = "/var/log/mail.log"\n')
    code, _, err = run(capsys, "config", "check", "-c", str(file))
    assert code == 78
    assert f"{file}:2: " in err
    assert "no-such-filter" in err


def test_check_of_good_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text('[jail.a]\nfilter = "sshd"\nlogpath = "/var/log/auth.log"\n[dns]\nservers = "127.0.0.1"\n')
    assert run(capsys, "config", "check", "-c", str(file)) == (0, f"no fault in {file} (1 jail)\n", "")
    code, out, _ = run(capsys, "config", "check", "-c", str(file), "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "files": [str(file)], "faults": []})


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "list", "-c", str(tmp_path / "none.toml"))
    assert (code, out) == (78, "")
    assert "cannot be read: No such file or directory\n    name another file with --config" in err


def fits(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """The part of JSON Schema that ours uses."""
    if "$ref" in schema:
        return fits(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, root)
    if "anyOf" in schema:
        return any(fits(one, value, root) for one in schema["anyOf"])
    if "const" in schema:
        return bool(schema["const"] == value)
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": (list, tuple),
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    if not isinstance(value, kinds[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        return False
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        if any(name not in value for name in schema.get("required", [])):
            return False
        return all(
            fits(known[name], entry, root)
            if name in known
            else others is True or (isinstance(others, dict) and fits(others, entry, root))
            for name, entry in value.items()
        )
    if isinstance(value, list):
        return all(fits(schema.get("items", {}), entry, root) for entry in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True


def test_the_schema_takes_what_the_settings_take(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "config", "schema")
    schema = json.loads(out)
    assert code == 0
    for text in (FULL, (shipped_rules() / "nftban.toml").read_text()):
        assert fits(schema, tomllib.loads(text), schema)
    assert not fits(schema, tomllib.loads(FAULTY), schema)
    for wrong in ('[jail.a]\nfilter = "x"\n', "[defaults]\nfindtime = true\n", "[allow]\nprefixes = [1]\n"):
        assert not fits(schema, tomllib.loads(wrong), schema)


def test_every_setting_is_described_in_the_schema() -> None:
    schema = json_schema()
    for name, table in schema["$defs"].items():
        assert all(setting.get("description") for setting in table["properties"].values()), name


def test_ruleset_is_the_shipped_snippet_for_the_shipped_settings(capsys: pytest.CaptureFixture[str]) -> None:
    rules = shipped_rules()
    code, out, err = run(capsys, "-c", str(rules / "nftban.toml"), "ruleset")
    assert (code, err) == (0, "")

    def ports_sorted(text: str) -> str:
        return re.sub(r"\{ ([\d, ]+) \}", lambda found: ",".join(sorted(found[1].split(", "))), text)

    assert ports_sorted(out) == ports_sorted((rules / "nftban.nft").read_text())


def test_ruleset_follows_the_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text('[kernel]\ntable = "mine"\n[scopes]\nweb = [80, 443]\n')
    _, out, _ = run(capsys, "-c", str(file), "ruleset", "--json")
    told = json.loads(out)
    assert told["table"] == "mine"
    assert "ban4_web" in told["sets"]
    assert "add element inet mine ports_web { 80, 443 }" in told["nft"]
