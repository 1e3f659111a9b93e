"""JSON Lines: one object a line, read strictly, written whole, appended to by jobs that resume.

Owns what counts as a line of JSON. Must not know which fields a record has, but for the id a job resumes by.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..errors import InputError, OutputError
from .atomic import DASH, atomic_write, translated
from .streams import byte_lines, decode_line, open_input, shown, stdout_writer

log = logging.getLogger("clvp")

MAX_DEPTH = 64  # of nesting: a record of ours has 3
ONE_A_LINE = "one JSON object a line is expected; jq -c . makes such lines"


def read_jsonl(source: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) from a file, or stdin for "-"; blank lines are skipped.

    Raises InputError naming file and line: not JSON, cut short, not an object, NaN or Infinity, nested too deep.
    """
    with open_input(source) as stream:
        yield from parse_lines(byte_lines(stream, source), source)


def parse_lines(lines: Iterable[tuple[int, bytes]], source: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """`read_jsonl` for lines already at hand."""
    for number, line in lines:
        text = decode_line(line, number, source)
        if text.strip():
            yield number, parse_line(text, number, source, ended=line.endswith(b"\n"))


def parse_line(text: str, number: int, source: str | Path, *, ended: bool = True) -> dict[str, Any]:
    """One line's object; `ended` says whether a line end followed it. Raises InputError naming file and line."""
    where = f"{shown(source)}: line {number}"
    try:
        loaded = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite_float)
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_depth(loaded)
    except RecursionError:
        raise InputError(f"{where} is nested deeper than {MAX_DEPTH} levels", ONE_A_LINE) from None
    except ValueError as error:
        if not ended and not text.rstrip().endswith("}"):
            raise InputError(f"{where} is cut short", "the file's end is missing: copy or make it again") from None
        reason = (
            f"{error.msg} at {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error).partition(":")[0]
        )
        raise InputError(f"{where} is not JSON: {reason}", ONE_A_LINE) from None
    if not isinstance(loaded, dict):
        raise InputError(f"{where} is not a JSON object but {_json_name(loaded)}", ONE_A_LINE)
    return loaded


def dump_record(record: dict[str, Any]) -> str:
    """One record as one line of JSON, without its line end; numpy's numbers and arrays become plain ones.

    Raises ValueError for NaN and infinities, which JSON does not have.
    """
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=_plain)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can carry escaped and UTF-8 cannot
        return json.dumps(record, ensure_ascii=True, allow_nan=False, default=_plain)
    return text


def write_jsonl(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Write records to a file, whole or not at all, or to stdout for "-", each as soon as it is there."""
    if str(path) == DASH:
        with stdout_writer() as write:
            for record in records:
                write(dump_record(record))
        return
    with atomic_write(path, "w") as file:
        for record in records:
            file.write(dump_record(record) + "\n")


class JsonlAppender:
    """A JSONL file that a long job appends to, and that a later run takes up where it ended.

    On entering, a last line that was cut short is dropped and `done` holds the ids (`record[key]`) of the others.
    Each record is written at once; what could not be written whole is taken back. A second writer is refused.
    """

    def __init__(self, path: str | Path, key: str = "id") -> None:
        self.path = Path(path)
        self.key = key
        self.done: set[Hashable] = set()
        self._descriptor = -1
        self._size = 0

    def __enter__(self) -> Self:
        with translated(self.path):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock(self._descriptor, self.path)
            self._check_name()
            self._take_up()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def append(self, record: dict[str, Any]) -> None:
        """Write one record; raises OutputError where the disk is full, with the file as it was before."""
        if self.key not in record:
            raise OutputError(f'{self.path}: a record without "{self.key}" cannot be resumed by', "give it one")
        self._write((dump_record(record) + "\n").encode("utf-8"))
        self.done.add(record[self.key])

    def _check_name(self) -> None:
        """OutputError where the run that held the lock has moved the file away: what is written would be lost."""
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._descriptor), self.path.stat()):
                return
        raise OutputError(f"{self.path}: another run has just finished it", "look at what it made")

    def _take_up(self) -> None:
        content = _whole(self._descriptor)
        complete, end, rest = content.rpartition(b"\n")
        self._size = len(complete) + len(end)
        count = 0
        for count, record in parse_lines(byte_lines(io.BytesIO(content[: self._size]), self.path), self.path):
            self._note(record, count)
        number = content.count(b"\n") + 1
        try:
            last = parse_line(decode_line(rest, number, self.path), number, self.path)
        except InputError:  # a run that was killed in the middle of a line
            with translated(self.path):
                os.ftruncate(self._descriptor, self._size)
                os.lseek(self._descriptor, 0, os.SEEK_END)
            return
        self._note(last, number)
        self._size = len(content)
        self._write(b"\n")

    def _note(self, record: dict[str, Any], number: int) -> None:
        done = record.get(self.key)
        if done is None or not isinstance(done, Hashable):
            raise InputError(f'{self.path}: line {number} has no "{self.key}" to resume by', "name another output file")
        self.done.add(done)

    def _write(self, line: bytes) -> None:
        try:
            with translated(self.path):
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
                os.lseek(self._descriptor, self._size, os.SEEK_SET)
            raise
        self._size += len(line)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _whole(descriptor: int) -> bytes:
    chunks = []
    while chunk := os.read(descriptor, 2**20):
        chunks.append(chunk)
    return b"".join(chunks)


def lock(descriptor: int, path: Path, *, wait: bool = False) -> None:
    """Keep an open file from other runs until it is closed; `wait` for one that has it, or raise OutputError.

    Nothing happens where the system or the file system has no advisory locks.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise OutputError(f"{path}: another run is writing it", "wait for it, or name another output") from None
        log.warning("%s: another run is writing it: waiting", path)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        return


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _check_depth(loaded: Any) -> None:
    level: list[Any] = [loaded]
    for _ in range(MAX_DEPTH):
        inner = [node.values() if isinstance(node, dict) else node for node in level]
        level = [child for children in inner for child in children if isinstance(child, list | dict)]
        if not level:
            return
    raise RecursionError


def _json_name(loaded: Any) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(loaded), "null")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
