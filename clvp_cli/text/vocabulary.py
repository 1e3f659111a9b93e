"""The vocabulary and its merges: the embedded tables, vocab.json + merges.txt, Tortoise's tokenizer.json.

Owns reading and writing of those files; knows nothing of text. Readers accept files that differ in what does not
matter (a missing header or final newline, Windows line ends) and refuse, by name and line, what does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from clvp_cli.documents import read_text, short
from clvp_cli.errors import InputError

VOCAB_FILE = "vocab.json"
MERGES_FILE = "merges.txt"
TORTOISE_FILE = "tokenizer.json"
MERGES_HEADER = "#version: 0.2"
MAX_ID = 2**24
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can write and no text holds


@dataclass(frozen=True)
class Vocabulary:
    """Tokens with their ids, and the merges by rank.

    Attributes:
        ids: token → id.
        merges: pairs, the first to be merged first.
        control: tokens that Tortoise's own file marks as never to be split ("[STOP]", "[UNK]", "[SPACE]").
    """

    ids: dict[str, int]
    merges: list[tuple[str, str]]
    control: tuple[str, ...] = field(default=("[STOP]", "[UNK]", "[SPACE]"))


@lru_cache(maxsize=1)
def embedded_vocabulary() -> Vocabulary:
    """The 255 entries and 215 merges of the published model (see assets/ORIGINS.md)."""
    assets = resources.files("clvp_cli") / "assets"
    ids = parse_vocab((assets / VOCAB_FILE).read_text(encoding="utf-8"), VOCAB_FILE)
    return Vocabulary(ids, parse_merges((assets / MERGES_FILE).read_text(encoding="utf-8"), MERGES_FILE))


def read_vocabulary(vocab_file: Path, merges_file: Path) -> Vocabulary:
    """vocab.json and merges.txt as transformers writes them; InputError names the file and what is wrong in it."""
    ids = parse_vocab(_read(vocab_file), str(vocab_file))
    return Vocabulary(ids, parse_merges(_read(merges_file), str(merges_file)))


def read_tortoise(path: Path) -> Vocabulary:
    """Tortoise's tokenizer.json (a file of the `tokenizers` library with a BPE model)."""
    document = _parse_json(_read(path), str(path))
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict) or "vocab" not in model or "merges" not in model:
        raise InputError(
            f"{path}: no BPE model with a vocab and merges in it", hint="expected Tortoise's tokenizer.json"
        )
    merges, added = model["merges"], document.get("added_tokens") or []
    ids = checked_ids(model["vocab"], str(path))
    if not isinstance(merges, list) or not all(isinstance(pair, str | list) for pair in merges):
        raise InputError(f"{path}: merges are a list of pairs of tokens")
    if not isinstance(added, list) or not all(isinstance(entry, dict) for entry in added):
        raise InputError(f"{path}: added_tokens are a list of objects")
    lines = [pair if isinstance(pair, str) else " ".join(map(str, pair)) for pair in merges]
    for entry in added:
        ids.setdefault(str(entry.get("content")), entry.get("id", len(ids)))
    control = tuple(str(entry.get("content")) for entry in added)
    return Vocabulary(checked_ids(ids, str(path)), _checked_merges(lines, 1, str(path)), control)


def parse_vocab(text: str, source: str) -> dict[str, int]:
    """The token → id object of a vocab.json."""
    return checked_ids(_parse_json(text, source), source)


def parse_merges(text: str, source: str) -> list[tuple[str, str]]:
    """The pairs of a merges.txt. The header and the final newline may be missing; no merge is lost either way."""
    lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
    first_number = 1
    if lines and lines[0].startswith("#version"):
        lines, first_number = lines[1:], 2
    return _checked_merges(lines, first_number, source)


def format_vocab(ids: dict[str, int]) -> str:
    """A vocab.json, byte for byte as transformers saves it."""
    return json.dumps(ids, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def format_merges(merges: list[tuple[str, str]]) -> str:
    """A merges.txt with the header and final newline that transformers' reader cannot do without."""
    return "".join(f"{line}\n" for line in [MERGES_HEADER, *(" ".join(pair) for pair in merges)])


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        decoded = not isinstance(error, UnicodeDecodeError)
        reason = getattr(error, "strerror", None) or (str(error) if decoded else "not UTF-8 text")
        raise InputError(f"cannot read the vocabulary file {path}: {reason}") from error


def _parse_json(text: str, source: str) -> Any:
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        hint = "fetch or convert the model again"
        raise InputError(f"{source}: not valid JSON ({str(error)[:120]})", hint) from error


def checked_ids(ids: Any, source: str) -> dict[str, int]:
    """Token → id as a file has it; InputError where it is no such mapping, or two tokens share an id."""
    if not isinstance(ids, dict) or not ids:
        raise InputError(f"{source}: expected an object of tokens and their ids")
    for token, index in ids.items():
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index <= MAX_ID:
            raise InputError(f"{source}: the id of {short(token)} is {short(index)}, not a whole number from 0 up")
        if not token.isascii() and SURROGATE.search(token):
            raise InputError(f"{source}: the token {short(token)} is no text")
    if len(set(ids.values())) != len(ids):
        raise InputError(f"{source}: two tokens share one id")
    return dict(ids)


def _checked_merges(lines: list[str], first_number: int, source: str) -> list[tuple[str, str]]:
    ranks: dict[tuple[str, str], int] = {}
    for number, line in enumerate(lines, start=first_number):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 2:
            raise InputError(f"{source}: line {number} is not a pair of tokens: {line[:60]!r}")
        ranks[parts[0], parts[1]] = number  # a pair given twice counts where it stands last, as in transformers
    return sorted(ranks, key=ranks.__getitem__)
