"""Where each key of a TOML text stands."""

from __future__ import annotations

import tomllib

import pytest

from nftban.config.positions import Path, positions


def placed(text: str) -> dict[Path, int]:
    tomllib.loads(text)
    return positions(text)


def test_tables_keys_and_dotted_keys() -> None:
    found = placed('top = 1\n\n[a]\nx = 1\n  y.z = 2 # x = 3\n\n[a.b."c d"]\n"q.r" = 1\n\'s\' = 2\n')
    assert found == {
        ("top",): 1,
        ("a",): 3,
        ("a", "x"): 4,
        ("a", "y"): 5,
        ("a", "y", "z"): 5,
        ("a", "b"): 7,
        ("a", "b", "c d"): 7,
        ("a", "b", "c d", "q.r"): 8,
        ("a", "b", "c d", "s"): 9,
    }


def test_a_table_without_a_header_stands_where_it_is_first_spoken_of_and_at_its_header_if_one_comes() -> None:
    assert placed("[jail.postfix]\n[jail.sshd]\n")["jail",] == 1
    assert placed("[jail.postfix]\n\n[jail]\nx = 1\n")["jail",] == 3
    assert placed("a.b.c = 1\na.d = 2\n")["a",] == 1


def test_elements_of_lists_over_many_lines() -> None:
    found = placed('a = [ # "[" ]\n  "x", "]",\n\n  # y\n  5\n  ,\n  [1,\n 2], {b = [3]},\n]\nz = 1\n')
    assert {path: line for path, line in found.items() if path[0] == "a"} == {
        ("a",): 1,
        ("a", 0): 2,
        ("a", 1): 2,
        ("a", 2): 5,
        ("a", 3): 7,
        ("a", 4): 8,
    }
    assert found["z",] == 10


@pytest.mark.parametrize(
    "value",
    [
        '"""\n[no]\nx = 1\n"""',
        "'''\n[no]\nx = 1\n'''",
        '"""\nend with a quote""""',
        "'''\nend with two quotes'''''",
        '["""\nend with a quote"""" ] # "',
        "['''\nend with a quote'''' ] # '",
        '"""\\"""\nx\\\\\n"""',
        '"""\n\\\n   \n"""',
        '[\n"""\n]\n""", 1]',
        "[\n'''\n# ''',\n]",
    ],
)
def test_nothing_inside_a_value_is_taken_for_a_key(value: str) -> None:
    text = f"a = {value}\nz = 1\n"
    found = placed(text)
    assert found["z",] == text.count("\n")
    assert {path for path in found if isinstance(path[-1], str)} == {("a",), ("z",)}


@pytest.mark.parametrize("value", ['"#"', "'\\'", '"\\""', '"a=b"', "1979-05-27T07:32:00Z", "0x1", '"[x]"', "[]", "{}"])
def test_values_of_one_line(value: str) -> None:
    assert placed(f"a = {value} # [c]\n[t]\nz = 1") == {("a",): 1, ("t",): 2, ("t", "z"): 3}


def test_arrays_of_tables_are_numbered() -> None:
    found = placed("[[t]]\nx = 1\n[[t]]\nx = 2\n")
    assert (found["t", 0], found["t", 0, "x"], found["t", 1], found["t", 1, "x"]) == (1, 2, 3, 4)


def test_a_text_without_a_last_newline_and_an_empty_one() -> None:
    assert placed("a = 1") == {("a",): 1}
    assert placed("") == {}
    assert placed("\n\n# only words\n") == {}
    assert placed("[a]") == {("a",): 1}


def test_a_long_text_takes_no_long_time() -> None:
    """Quadratic work would take minutes here; the suite's time limit would end it."""
    text = "a = [\n" + '  "192.0.2.1", # "]"\n' * 100_000 + "]\nz = 1\n"
    found = placed(text)
    assert found["a", 99_999] == 100_001
    assert found["z",] == 100_003
