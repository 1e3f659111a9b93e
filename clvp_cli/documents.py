"""JSON and YAML files that somebody else wrote, read strictly: one object or mapping each, of bounded size and depth.

Owns what such a file may not hold, and how a value of whatever size is shown in a message. Knows no key by name.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import ConfigError

MAX_JSON_BYTES = 32 * 2**20
MAX_YAML_BYTES = 2**16
MAX_DEPTH = 16  # of YAML's nesting: settings have 2
MAX_SCALAR = 2048  # characters of one value in YAML
CUT_SHORT = "the file may be cut short; copy it again"

_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 80, 80


def short(value: object) -> str:
    """A value as a message shows it: one line, whatever its size."""
    try:
        told = _REPR.repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    return told if len(told) <= 100 else f"{told[:90]}...{told[-5:]}"


def read_text(path: Path, limit: int = 0) -> str:
    """A file's text, without a byte order mark; OSError or ValueError: no file, larger than `limit`, not UTF-8."""
    limit = limit or MAX_JSON_BYTES
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit:,} bytes")
    return data.decode("utf-8-sig")


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object from `path`; raises ConfigError naming the file."""
    try:
        loaded = json.loads(read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", "a model directory holds a config.json beside its weights") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as JSON: {_reason(error)}", CUT_SHORT) from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: a JSON object is expected, found {type(loaded).__name__}")
    return loaded


def read_yaml(path: Path, example: str) -> dict[str, Any]:
    """Read one YAML mapping from `path`, {} where it is empty; `example` is the hint where it is something else.

    Raises ConfigError naming the file: no YAML, no mapping, a key given twice, and what settings have no use for and
    what a small file can do harm with: anchors, aliases, tags, deep nesting.
    """
    import yaml

    try:
        text = read_text(path, MAX_YAML_BYTES)
        _check_events(yaml.parse(text, yaml.SafeLoader))
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _check_keys(node)
        loaded = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {_reason(error)}") from None
    except (yaml.YAMLError, ValueError, ArithmeticError) as error:  # a date or number that is none; a date out of range
        raise ConfigError(f"{path}: not YAML that is read here: {_reason(error)}", example) from None
    if loaded is not None and not isinstance(loaded, dict):
        raise ConfigError(f"{path}: a mapping is expected, found {type(loaded).__name__}", example)
    return {str(key): value for key, value in (loaded or {}).items()}


def _reason(error: Exception) -> str:
    told = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(told.replace(' in "<unicode string>"', "").split())[:200]


def _check_events(events: Iterable[Any]) -> None:
    """Raise ValueError at the first anchor, alias, tag, large value or deep nesting; nothing has been built then."""
    depth = 0
    for event in events:
        kind, value = type(event).__name__, getattr(event, "value", None)
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            raise ValueError(f"line {event.start_mark.line + 1}: anchors, aliases and tags are not read")
        if depth > MAX_DEPTH:
            raise ValueError(f"line {event.start_mark.line + 1}: nested deeper than {MAX_DEPTH} levels")
        if value is not None and len(value) > MAX_SCALAR:
            raise ValueError(f"line {event.start_mark.line + 1}: a value of {len(value):,} characters")


def _check_keys(node: Any) -> None:
    """Raise ValueError for a key that a mapping has twice, of which YAML would keep the last without a word."""
    seen: set[str] = set()
    for entry in node.value if node is not None and not isinstance(node.value, str) else ():
        key, value = entry if isinstance(entry, tuple) else (None, entry)
        if key is not None and str(key.value) in seen:
            raise ValueError(f"line {key.start_mark.line + 1}: the key {short(key.value)} a second time")
        seen.add("" if key is None else str(key.value))
        _check_keys(value)
