"""Candidate files out: .npy, .npz, .jsonl, .txt (units), .parquet, or JSONL on stdout.

Owns how candidates are laid out in each kind, so that candidates.py reads back the same codes and stops. Must not
know of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError, UsageError
from ..records import Candidate
from .arrays import json_array, write_npy, write_npz
from .atomic import DASH, atomic_write, is_special
from .jsonl import write_jsonl
from .rows import PAD, CodeBook
from .streams import stdout_writer

KINDS = {".npy": "npy", ".npz": "npz", ".jsonl": "jsonl", ".txt": "txt", ".parquet": "parquet"}
LINES = ("jsonl", "txt")  # the kinds that stdout takes
UNKNOWN_SEED = -1


def output_kind(path: str | Path, kind: str | None = None) -> str:
    """The kind of file that `path` asks for by its suffix, or `kind`; raises UsageError listing the known ones."""
    if kind is not None and kind not in KINDS.values():
        raise UsageError(f"{kind!r} is no kind of candidate file", f"the kinds are {', '.join(KINDS.values())}")
    if str(path) == DASH:
        if kind not in (None, *LINES):
            raise UsageError(f".{kind} cannot go to stdout", "name a file with -o, or write .jsonl")
        return kind or "jsonl"
    suffix = Path(path).suffix.lower()
    if kind is None and not suffix and is_special(path):  # /dev/stdout, a FIFO
        return "jsonl"
    if kind is None and suffix not in KINDS:
        raise UsageError(f"{path}: candidates have no kind of file called {suffix!r}", f"use one of {', '.join(KINDS)}")
    return kind or KINDS[suffix]


def write_candidates(
    path: str | Path,
    candidates: Iterable[Candidate],
    book: CodeBook,
    *,
    meta: Mapping[str, Any] | None = None,
    kind: str | None = None,
) -> None:
    """Write candidates to a file of the kind its suffix names, whole or not at all; "-" is JSONL on stdout.

    `meta`, what produced them, is kept by .npz and .parquet; fields of foreign records by .jsonl and .parquet.
    Raises UsageError for an unknown suffix, OutputError for what cannot be written.
    """
    kind = output_kind(path, kind)
    rows = list(candidates)
    if not rows:
        raise OutputError(f"{path}: no candidates to write", "nothing was written")
    for row, candidate in enumerate(rows):
        if not book.holds(candidate.codes):
            raise OutputError(f"{path}: row {row}: a code outside 0 … {book.size - 1}", "nothing was written")
    if kind == "npy":
        write_npy(path, padded(rows, book))
    elif kind == "npz":
        write_npz(path, _columns(path, rows, book, meta))
    elif kind == "parquet":
        from .parquet import write_records

        write_records(path, [candidate.record() for candidate in rows], meta)
    elif kind == "jsonl":
        write_jsonl(path, (candidate.record() for candidate in rows))
    else:
        _write_lines(path, [units(candidate) for candidate in rows])


def padded(candidates: Sequence[Candidate], book: CodeBook) -> NDArray[np.int32]:
    """Codes (N, T): a stopped row is filled up with the stop code, at least one; another with −1."""
    width = max(1, *(candidate.length + candidate.stopped for candidate in candidates))
    codes = np.full((len(candidates), width), PAD, dtype=np.int32)
    for row, candidate in enumerate(candidates):
        codes[row, : candidate.length] = candidate.codes
        if candidate.stopped:
            codes[row, candidate.length :] = book.stop
    return codes


def units(candidate: Candidate) -> str:
    """A candidate as a line of units; <eosp> says that it stopped by itself."""
    return f"<sosp>{''.join(f'<{code}>' for code in candidate.codes.tolist())}{'<eosp>' if candidate.stopped else ''}"


def _columns(
    path: str | Path, rows: Sequence[Candidate], book: CodeBook, meta: Mapping[str, Any] | None
) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {
        "codes": padded(rows, book),
        "lengths": np.array([row.length for row in rows], dtype=np.int64),
        "stopped": np.array([row.stopped for row in rows], dtype=np.bool_),
        "index": np.array([row.index for row in rows], dtype=np.int64),
        "meta": json_array(dict(meta or {})),
    }
    seeds = [UNKNOWN_SEED if row.seed is None else row.seed for row in rows]
    if any(row.seed is not None and not 0 <= row.seed < 2**63 for row in rows):
        raise OutputError(f"{path}: a seed does not fit .npz", "write .jsonl, which keeps any")
    if any(seed != UNKNOWN_SEED for seed in seeds):
        columns["seeds"] = np.array(seeds, dtype=np.int64)
    if any(row.logprob is not None for row in rows):
        columns["logprobs"] = np.array([np.nan if row.logprob is None else row.logprob for row in rows])
    return columns


def _write_lines(path: str | Path, lines: Iterable[str]) -> None:
    if str(path) == DASH:
        with stdout_writer() as write:
            for line in lines:
                write(line)
        return
    with atomic_write(path, "w") as file:
        for line in lines:
            file.write(line + "\n")
