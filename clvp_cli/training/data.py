"""Clips to train on: a manifest, and caches of log-mels and codes as memory-mapped arrays.

Owns reading manifests, computing features once, and drawing batches of clips of like length. A batch is a function of
(seed, step), so that a run that resumes draws what it would have drawn. Knows nothing of losses.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, OutputError
from ..io.atomic import translated
from ..io.jsonl import lock, read_jsonl
from ..io.streams import read_text_lines
from .phones import Words, read_phones

log = logging.getLogger("clvp")
FRAMES_A_SECOND = 22050 / 256
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """One line of a manifest. `audio` is a path, or `codes` are given."""

    text: str
    speaker: str
    audio: str
    codes: tuple[int, ...]
    source: str
    held_out: bool
    ids: tuple[int, ...]
    phones: Words = ()  # word by word, where the manifest tells


def read_manifest(path: Path, encode: Callable[[str], Sequence[int]], held_out: float) -> list[Clip]:
    """Read a JSONL or TSV manifest; audio paths are relative to it.

    Args:
        encode: text → ids.
        held_out: share of the clips kept back where lines have no `split` (train, or dev, valid, test, held-out).
    Raises:
        InputError: no such file, or a line without text, or with neither audio nor codes; it names the line.
    """
    clips = []
    folder = path.parent.resolve()  # caches that several projects share know a clip by its whole path
    for number, row in _rows(path):
        where = f"{path}: line {number}"
        text, audio, codes = row.get("text"), row.get("audio") or row.get("file"), row.get("codes")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where} has no text", "each line needs text, speaker, and audio or codes")
        spoken = _codes(codes, where)
        if not audio and not spoken:
            raise InputError(f"{where} has neither audio nor codes", "name a sound file, or give a list of codes")
        if audio and not isinstance(audio, str):
            raise InputError(f"{where}: audio is no file name", 'write it as "audio": "clip.wav"')
        name = str(folder / audio) if audio else ""
        split = row.get("split")
        kept_back = _chance(audio or text) < held_out if split is None else split != "train"
        speaker, source = str(row.get("speaker") or "unknown"), str(row.get("source") or "")
        ids, phones = tuple(int(i) for i in encode(text)), read_phones(str(row.get("phones") or ""))
        clips.append(Clip(text, speaker, name, spoken, source, kept_back, ids, phones))
    if not clips:
        raise InputError(f"{path}: no clips in it", "each line needs text, speaker, and audio or codes")
    return clips


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix.lower() != ".tsv":
        yield from read_jsonl(path)
        return
    table = csv.DictReader((line + "\n" for line in read_text_lines(path)), delimiter="\t")
    try:
        for row in table:
            where = f"{path}: line {table.line_num}"
            if None in row:
                raise InputError(f"{where} has more columns than the first line", "tabs between columns alone")
            if any(value and "\n" in value for value in row.values()):
                raise InputError(
                    f"{where}: a quoted field that began lines before", 'close it, or write each " in it twice'
                )
            yield table.line_num, {key: value for key, value in row.items() if value}
    except csv.Error as error:
        where = f"{path}: line {table.line_num + 1}"
        raise InputError(
            f"{where}: not readable as TSV: {error}", "tabs between columns, a header line first"
        ) from None


def _codes(codes: Any, where: str) -> tuple[int, ...]:
    if not codes:
        return ()
    listed = codes.split() if isinstance(codes, str) else codes
    try:
        numbers = tuple(int(code) if isinstance(code, str) else code for code in listed)
        if not isinstance(listed, list) or any(type(number) is not int for number in numbers):
            raise TypeError
    except (TypeError, ValueError):
        raise InputError(f"{where}: codes are not whole numbers", 'write them as "codes": [12, 7, …]') from None
    if min(numbers, default=0) < 0:
        raise InputError(f"{where}: a code below 0", "give codes without padding")
    return numbers


def _chance(name: str) -> float:
    """A number in [0, 1) that is a function of the name: the same clips are kept back in every run."""
    return zlib.crc32(name.encode()) / 2**32


def make_directory(path: Path, option: str) -> None:
    """Make a directory where it is missing; OutputError names what it could be changed by."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{str(path)!r}: cannot be made: {reason}", f"name another directory: {option}") from None


class ArrayCache:
    """Arrays of one row width, appended to one flat file beside an index of JSON lines; reads are memory-mapped.

    The index line is written after the data, so a run that is killed leaves only whole entries. Runs that share a cache
    fill it one after another, the index locked and read anew. An entry is superseded by a later one of its key.

    Raises:
        InputError: the index is damaged, or tells of more than the data hold.
        OutputError: the directory cannot be made, or the disk is full.
    """

    def __init__(self, directory: Path, name: str, dtype: str, width: int) -> None:
        make_directory(directory, "data.cache")
        self.data, self.index = directory / f"{name}.{dtype}", directory / f"{name}.jsonl"
        self.dtype, self.width = np.dtype(dtype), width
        self._read_index()

    def _read_index(self) -> int:
        """Take up what is there; returns the length of the index in bytes, less a last line that was cut short."""
        self.places: dict[str, tuple[int, int]] = {}  # start, rows
        self.stamps: dict[str, str | None] = {}
        self.end = 0  # rows of data
        self._map: NDArray[Any] | None = None
        whole, end, _ = (self.index.read_bytes() if self.index.is_file() else b"").rpartition(b"\n")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                key, start, rows, stamp = (entry.get(name) for name in ("key", "start", "rows", "stamp"))
                if not (type(key) is str and type(start) is type(rows) is int and start == self.end and rows >= 0):
                    raise ValueError  # those that do not follow one another were written by two runs at once
            except (ValueError, AttributeError, RecursionError):
                raise self._damaged(f"line {number} of {self.index.name}") from None
            self.places[key], self.stamps[key] = (start, rows), stamp
            self.end += rows
        if self.end * self.width * self.dtype.itemsize > (self.data.stat().st_size if self.data.is_file() else 0):
            raise self._damaged(f"{self.data.name} is shorter than {self.index.name} tells")
        return len(whole + end)

    def _damaged(self, what: str) -> InputError:
        names = f"{self.data} and {self.index}"
        return InputError(f"{self.data.parent}: a damaged cache: {what}", f"remove {names}: they are made again")

    def fill(
        self,
        keys: Sequence[str],
        make: Callable[[str], NDArray[Any] | None],
        note: Callable[[int, int], None],
        stamps: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Compute what is missing.

        Args:
            make: gives (rows, width), or None to leave a key out.
            note: hears how far.
            stamps: of keys: what was kept under another stamp is computed again.
        """
        if not self._missing(keys, stamps):
            return
        with translated(self.index):
            index = self.index.open("ab", buffering=0)
        with index:
            lock(index.fileno(), self.index, wait=True)
            whole = self._read_index()  # another run may have filled it meanwhile
            missing = self._missing(keys, stamps)
            changed = sum(key in self.places for key in missing)
            if changed:
                log.warning("%s: %d of %d made again: what they were made from changed", self.index, changed, len(keys))
            with translated(self.data):
                index.truncate(whole)
                data = self.data.open("r+b" if self.data.exists() else "w+b", buffering=0)
            with data:
                data.truncate(self.end * self.width * self.dtype.itemsize)
                data.seek(0, os.SEEK_END)
                for number, key in enumerate(missing, start=1):
                    array = make(key)
                    note(number, len(missing))
                    if array is None:
                        self.places.pop(key, None)
                    else:
                        self._append(key, array, stamps.get(key), data, index)

    def _missing(self, keys: Sequence[str], stamps: Mapping[str, str]) -> list[str]:
        there = ((key, self.stamps.get(key)) for key in dict.fromkeys(keys))
        return [key for key, stamp in there if key not in self.places or stamps.get(key, stamp) != stamp]

    def _append(self, key: str, array: NDArray[Any], stamp: str | None, data: RawIOBase, index: RawIOBase) -> None:
        entry = {"key": key, "start": self.end, "rows": len(array), "stamp": stamp}
        content = np.ascontiguousarray(array, dtype=self.dtype).tobytes()
        for path, file, rest in ((self.data, data, content), (self.index, index, f"{json.dumps(entry)}\n".encode())):
            with translated(path):
                while rest:  # a raw file may take less than it is given
                    rest = rest[file.write(rest) :]
        self.places[key], self.stamps[key] = (self.end, len(array)), stamp
        self.end += len(array)
        self._map = None

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def rows(self, key: str) -> int:
        """How many rows a key has."""
        return self.places[key][1]

    def read(self, key: str, first: int = 0, count: int | None = None) -> NDArray[Any]:
        """(rows, width), or a part of them."""
        if self._map is None:
            self._map = np.memmap(self.data, dtype=self.dtype, mode="r", shape=(self.end, self.width))
        start, rows = self.places[key]
        stop = rows if count is None else min(rows, first + count)
        return np.asarray(self._map[start + first : start + stop])


class Draw:
    """Batches of clips of like length: a function of (seed, step), weighted by length and by source.

    Args:
        places: what to draw from: places in a list of clips.
        lengths: of each, in what `budget` counts; a batch is as long as its longest clip times its clips.
        weights: of each in sampling, beside its length.
        budget: length of a batch, about; `most` clips at most.
    """

    def __init__(
        self, places: Sequence[int], lengths: Sequence[int], weights: Sequence[float], budget: int, most: int, seed: int
    ) -> None:
        self.places, self.lengths = np.asarray(places), np.asarray(lengths, dtype=np.int64)
        mass = self.lengths * np.asarray(weights, dtype=np.float64)
        self.edges = np.cumsum(mass / mass.sum())
        mean = float((mass * self.lengths).sum() / mass.sum())
        self.expected = max(1, min(most, round(budget / mean)))
        self.budget, self.most, self.seed = budget, most, seed

    def __call__(self, step: int) -> tuple[list[int], np.random.Generator]:
        """The places of a step's clips, shortest first, and the generator for whatever else is drawn in it."""
        rng = np.random.default_rng([self.seed, step])
        pool = np.minimum(np.searchsorted(self.edges, rng.random(4 * self.expected)), len(self.lengths) - 1)
        pool = np.unique(pool)  # a clip comes once in a batch
        pool = pool[np.argsort(self.lengths[pool], kind="stable")]
        first = int(rng.integers(0, max(1, len(pool) - self.expected + 1)))
        chosen: list[int] = []
        for place in pool[first:]:
            if chosen and (self.lengths[place] * (len(chosen) + 1) > self.budget or len(chosen) == self.most):
                break
            chosen.append(int(place))
        return [int(self.places[i]) for i in chosen], rng
