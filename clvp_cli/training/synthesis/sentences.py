"""Short English sentences from public-domain books and free word lists, held-out ones apart.

Reads three kinds of source: plain text, R's lazy-load databases (where Debian keeps Jane Austen), and WordNet's
examples. Sentences with digits, capitals in a row or signs are left out: every engine and the text normaliser must
read a sentence alike. Knows nothing of voices or audio.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clvp_cli.errors import ConfigError, InputError

_TITLES = ("Mr", "Mrs", "Dr", "St", "Capt", "Messrs", "Col", "Gen")
_TITLE = "".join(rf"(?<!\b{title}\.)" for title in _TITLES)
_END = re.compile(_TITLE + r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z])")
_CLAUSE = re.compile(r"[;:]\s|\s?--+\s?|—")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z' ,.!?-]*[A-Za-z][.!?]?")
_ODD = re.compile(r"\b[A-Z][A-Z]+\b|\b[B-HJ-NP-Zb-hj-np-z]\b(?<!'\w)|\.\s?\.|\w\.\w|--|\s'|'\s")


def read_sources(sources: list[dict[str, Any]], root: Path) -> Iterator[tuple[str, str]]:
    """Yield (source name, sentence) of every source {"name", "kind": text|rdb|wordnet, "files": glob}."""
    for source in sources:
        kinds = {"text": _paragraphs, "rdb": _rdb_paragraphs, "wordnet": _wordnet_examples}
        if source["kind"] not in kinds:
            raise ConfigError(f"sentences: no kind {source['kind']}", f"one of {', '.join(kinds)}")
        files = sorted(root.glob(source["files"]))
        if not files:
            raise InputError(f"no file {root / source['files']}", "fetch the packages first: make mini-data")
        for path in files:
            for paragraph in kinds[source["kind"]](path):
                for sentence in split(paragraph):
                    yield source["name"], sentence


def split(paragraph: str, least: int = 3, most: int = 16) -> Iterator[str]:
    """Sentences of `least` to `most` words; longer ones give their clauses."""
    text = re.sub(r"[“”\"_()\[\]]", "", paragraph.translate({0x2018: "'", 0x2019: "'"}))
    for sentence in _END.split(re.sub(r"\s+", " ", text).strip()):
        parts = [sentence] if len(sentence.split()) <= most else _CLAUSE.split(sentence)
        for part in (p.strip(" ,'-") for p in parts):
            plain = _PLAIN.fullmatch(part) and not _ODD.search(part)
            if plain and least <= len(part.split()) <= most and not part.removesuffix(".").endswith(_TITLES):
                yield part


def prepare(sources: list[dict[str, Any]], root: Path, target: Path, held_out: int, seed: int) -> None:
    """Write `target`, a line a sentence: split, source, text; shuffled, none twice. Does nothing if it exists."""
    if target.is_file():
        return
    unique: dict[str, tuple[str, str]] = {}
    for source, text in read_sources(sources, root):
        unique.setdefault(re.sub(r"[^a-z ]", "", text.lower()), (source, text))
    rows = sorted(unique.values())
    random.Random(seed).shuffle(rows)
    lines = [f"{'heldout' if i < held_out else 'train'}\t{s}\t{t}\n" for i, (s, t) in enumerate(rows)]
    part = target.with_suffix(".part")
    part.write_text("".join(lines), "utf-8")
    part.replace(target)


def load(path: Path) -> dict[str, list[str]]:
    """{"train": [...], "heldout": [...]} from what `prepare` wrote."""
    texts: dict[str, list[str]] = {"train": [], "heldout": []}
    for line in path.read_text("utf-8").splitlines():
        name, _, text = line.split("\t")
        texts[name].append(text)
    return texts


def _paragraphs(path: Path) -> Iterator[str]:
    yield from re.split(r"\n\s*\n", path.read_text("utf-8", errors="replace"))


def _rdb_paragraphs(path: Path) -> Iterator[str]:
    """Character vectors of an R lazy-load database: zlib blocks of XDR, each string a flag, a length, its bytes."""
    data, blocks = path.read_bytes(), list[bytes]()
    position = 0
    while position + 6 < len(data):
        if data[position + 4] != 0x78:  # not the start of a zlib stream: a block stored otherwise
            position += 1
            continue
        inflate = zlib.decompressobj()
        try:
            blocks.append(inflate.decompress(data[position + 4 :]))
        except zlib.error:
            position += 1
            continue
        position = len(data) - len(inflate.unused_data)
    for block in blocks:
        lines = []
        for match in re.finditer(rb"\x00[\x00\x04]\x00\x09(?=\x00\x00[\x00-\x01])", block):
            (size,) = struct.unpack(">I", block[match.end() : match.end() + 4])
            lines.append(block[match.end() + 4 : match.end() + 4 + size].decode("utf-8", errors="replace"))
        yield from re.split(r"\n\s*\n", "\n".join(lines))


def _wordnet_examples(path: Path) -> Iterator[str]:
    for line in path.read_text("utf-8", errors="replace").splitlines():
        yield from re.findall(r"\"([^\"]+)\"", line.partition("|")[2])
