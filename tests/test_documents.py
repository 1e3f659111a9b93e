"""JSON and YAML that somebody else wrote: what cannot be used is one line that names the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clvp_cli.documents import read_json, read_yaml, short
from clvp_cli.errors import ConfigError

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "line 1: anchors, aliases and tags"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: anchors, aliases and tags"),
        ("a: 1\na: 2", "line 2: the key 'a' a second time"),
        ("a: {b: 1, b: 2}", "the key 'b' a second time"),
        ("[" * 60_000, "nested deeper than 16"),
        ("- " * 30_000, "nested deeper than 16"),
        ("a: " + "9" * 5000, "a value of 5,000 characters"),
        ("x" * 70_000, "larger than 65,536 bytes"),
        ("a: 0x_", "invalid literal"),
        ("a: 2024-13-45", "month must be in"),
        ("a: 0001-01-01T00:00:00.0+23:59\n? [a]\n: 1", "unhashable key"),
        ("a: \0", "unacceptable character"),
        ("a:\n\tb: 1", "cannot start any token"),
        ("a: 1\n---\nb: 1", "expected a single document"),
        ("- 1", "a mapping is expected, found list"),
        ("a", "a mapping is expected, found str"),
        (b"\xff\xfe", "can't decode"),
    ],
)
def test_yaml_that_settings_have_no_use_for_is_one_short_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    """Aliases, tags, double keys, depth, size, odd values and bytes: a ConfigError that names the file, at once."""
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read_yaml(path, "see the example")
    assert caught.value.message.startswith(f"{path}: ") and says in caught.value.message
    assert "\n" not in caught.value.message and len(caught.value.message) < len(str(path)) + 250


def test_plain_yaml_is_read(tmp_path: Path) -> None:
    """A mapping, with a byte order mark or without; an empty file is an empty mapping; keys become text."""
    for text, expected in {"\ufeffa: [1, {b: x}]\n1: null": {"a": [1, {"b": "x"}], "1": None}, "": {}}.items():
        (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
        assert read_yaml(tmp_path / "c.yaml", "") == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "not readable as JSON"),
        ('{"a":' * 100_000, "not readable as JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not readable as JSON"),
        ('{"a": 1', "not readable as JSON"),
        (b'{"a": "\xff"}', "not readable as JSON"),
        ("[]", "a JSON object is expected, found list"),
    ],
)
def test_json_that_cannot_be_used_is_one_short_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    """Deep nesting, endless numbers, bytes that are no text, a list: a ConfigError that names the file."""
    path = tmp_path / "c.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read_json(path)
    assert caught.value.message.startswith(f"{path}: {says}")
    assert "\n" not in caught.value.message and len(caught.value.message) < len(str(path)) + 250


def test_pipes_and_giants_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no file would wait for ever, and what is too large is not taken into memory."""
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ConfigError, match="not a file"):
        read_json(tmp_path / "pipe.json")
    monkeypatch.setattr("clvp_cli.documents.MAX_JSON_BYTES", 7)
    (tmp_path / "a.json").write_text('{"a": 1}')
    with pytest.raises(ConfigError, match="larger than 7 bytes"):
        read_json(tmp_path / "a.json")


def test_a_value_of_any_size_is_shown_short() -> None:
    """Texts, lists, mappings and numbers of any size take a part of one line."""
    nested: list[object] = []
    for _ in range(500):
        nested = [nested]
    for value in ("x" * 10**6, ["\n"] * 10**6, 10**5000, nested, {str(at): at for at in range(999)}):
        assert len(short(value)) < 100 and "\n" not in short(value)
    assert (short("a'b"), short(5), short(None)) == ('"a\'b"', "5", "None")
