"""Candidate files in: .npy, .npz, .jsonl, lines of units, .parquet, told apart by their first bytes.

Owns which kind a file is and how each becomes Candidates; rows.py has the rules of a row, candidate_files.py the
way out. Must not know of models: the caller's CodeBook says which codes there are.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CandidateError, InputError
from ..records import MAX_LENGTH, Candidate
from .arrays import MAGIC, parse_header, read_npy, read_npz
from .candidate_files import KINDS, output_kind, write_candidates
from .jsonl import parse_lines
from .rows import CUT, BadRowError, CodeBook, Extents, as_codes, candidate_of, keep_lengths, settle, too_long
from .streams import DASH, byte_lines, decode_line, open_input, read_bytes, shown

__all__ = [
    "KINDS",
    "CodeBook",
    "candidate_kind",
    "kind_of",
    "output_kind",
    "read_candidates",
    "read_meta",
    "write_candidates",
]

MAX_CODES = 64 * 2**20  # in one file, checked before they are allocated
HEAD = 64
UNITS = re.compile(r"\s*+(<sosp>\s*+)?+((?:<[0-9]{1,18}>\s*+)*+)(<eosp>\s*+)?+")  # possessive: linear in blanks
COLUMNS = {"lengths": "iu", "stopped": "biu", "seeds": "iu", "logprobs": "f", "index": "iu"}  # what .npz may add
FORMATS = "candidates are .npy, .npz, .jsonl, .parquet or lines of units (<661><588>…)"
AUDIO = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"FORM", b"caff")
REFUSALS = {
    "pickle": ("a pickle: refused, nothing in it was executed", "save the codes with numpy.save, as integers"),
    "audio": ("audio, not a candidate file", "audio becomes candidates through a model with a codec: clvp encode"),
    "gzip": ("compressed", "unpack it first: gunzip -c FILE | clvp score - …"),
    "empty": ("empty", "was it cut short?"),
    "unknown": ("not a candidate file", FORMATS),
}


def candidate_kind(source: str | Path) -> str:
    """Which kind a file is by its first bytes: npy, npz, jsonl, units, parquet, audio, pickle, gzip, empty, unknown."""
    with open_input(source) as stream:
        try:
            return sniff(stream.read(HEAD))
        except OSError as error:
            raise InputError(f"{shown(source)}: cannot be read: {error.strerror}") from None


def kind_of(data: bytes) -> str:
    """`candidate_kind` of a whole file's bytes."""
    return sniff(data[: HEAD + blanks.end()] if (blanks := re.match(rb"\s*", data)) else data)


def sniff(head: bytes) -> str:
    """`candidate_kind` of bytes at hand."""
    signs = {MAGIC: "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"PAR1": "parquet", b"\x1f\x8b": "gzip"}
    for sign, kind in signs.items():
        if head.startswith(sign):
            return kind
    if head.startswith(AUDIO):
        return "audio"
    if re.match(rb"\x80[\x02-\x05]", head):
        return "pickle"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return "empty"
    return {b"{": "jsonl", b"[": "jsonl", b"<": "units"}.get(text[:1], "unknown")


def read_candidates(
    source: str | Path, book: CodeBook, *, data: bytes | None = None, failed: list[dict[str, Any]] | None = None
) -> list[Candidate]:
    """Read the candidates of a file of any kind, or of stdin for "-" (`data`: its bytes, where they are at hand).

    Codes come without the start and the stop code; `index` is the row, or the record's own. Records with an "error" in
    place of codes go to `failed`, where that is given. Raises CandidateError naming the file and the row (from 0; the
    line too where there are lines), and never unpickles anything.
    """
    name = shown(source)
    try:
        data = read_bytes(source) if data is None else data
        kind = kind_of(data)
        if kind in REFUSALS:
            what, hint = REFUSALS[kind]
            raise CandidateError(f"{name}: {what}", hint)
        if kind == "npz" and str(source) == DASH:
            raise CandidateError("stdin: an .npz cannot be read from stdin", "name the file, or pipe .jsonl or .npy")
        found = list(_read(kind, data, str(source), name, book, failed))
    except BadRowError as bad:
        raise CandidateError(f"{name}: row {bad.row}: {bad.reason}", bad.hint) from None
    except CandidateError:
        raise
    except InputError as error:
        raise CandidateError(error.message, error.hint) from None
    if not found and not failed:
        raise CandidateError(f"{name}: no candidates in it", FORMATS)
    return found


def read_meta(path: str | Path) -> dict[str, Any]:
    """What an .npz says of how its candidates were made; {} where it says nothing."""
    meta = read_npz(path, only=("meta",)).get("meta")
    if meta is None or meta.ndim or meta.dtype.kind != "U":
        return {}
    lines = [(1, str(meta).encode("utf-8", "surrogatepass"))]
    return next((loaded for _, loaded in parse_lines(lines, f"{path}: meta")), {})


def _read(
    kind: str, data: bytes, source: str, name: str, book: CodeBook, failed: list[dict[str, Any]] | None
) -> Iterable[Candidate]:
    if kind == "npy":
        _check_shape(parse_header(data, name).shape, name)
        return _from_arrays({"codes": read_npy(data, name)}, source, name, book)
    if kind == "npz":
        wanted = ("codes", "lengths", "stopped", "seeds", "logprobs", "index")

        def admit(key: str, shape: tuple[int, ...]) -> None:
            if key == "codes":
                _check_shape(shape, name)

        arrays = read_npz(data, name, wanted, admit=admit)
        return _from_arrays(arrays, source, name, book)
    if kind == "parquet":
        from .parquet import read_records

        rows = ((None, record) for record in read_records(data, name, MAX_CODES))
        return _from_records(rows, source, name, book, failed)
    lines = byte_lines(io.BytesIO(data), source)
    if kind == "jsonl":
        return _from_records(parse_lines(lines, source), source, name, book, failed)
    return _from_units(lines, source, name, book)


def _from_arrays(arrays: dict[str, NDArray[Any]], source: str, name: str, book: CodeBook) -> Iterator[Candidate]:
    if "codes" not in arrays:
        raise CandidateError(f"{name}: no array called codes in it", "numpy.savez(path, codes=codes) makes one")
    codes = arrays["codes"]
    if codes.ndim not in (1, 2):
        raise CandidateError(
            f"{name}: codes have {codes.ndim} dimensions", "they are (N, T), or (T,) for one candidate"
        )
    codes = as_codes(codes[None, :] if codes.ndim == 1 else codes)
    if not len(codes):
        raise CandidateError(f"{name}: no candidates in it: codes are {codes.shape}", FORMATS)
    known = {key: _column(arrays, key, kinds, len(codes), name) for key, kinds in COLUMNS.items()}
    lengths = known["lengths"]
    if lengths is not None:
        codes = keep_lengths(codes, lengths.astype(np.int64), book)
    silent = None
    if lengths is not None and known["stopped"] is not None:
        silent = (lengths == 0) & known["stopped"].astype(np.bool_)
    extents = settle(codes, book, silent)
    if lengths is not None:
        _check_lengths(extents, lengths)
    stopped = extents.stopped if known["stopped"] is None else known["stopped"].astype(np.bool_)
    index, seeds, logprobs = known["index"], known["seeds"], known["logprobs"]
    for row, (begin, end) in enumerate(zip(extents.begin.tolist(), extents.end.tolist(), strict=True)):
        yield Candidate(
            codes=codes[row, begin:end].copy(),  # a view would keep the whole array alive
            stopped=bool(stopped[row]),
            index=row if index is None else int(index[row]),
            source=source,
            seed=None if seeds is None or seeds[row] < 0 else int(seeds[row]),
            logprob=None if logprobs is None or not np.isfinite(logprobs[row]) else float(logprobs[row]),
        )


def _column(arrays: dict[str, NDArray[Any]], key: str, kinds: str, count: int, name: str) -> NDArray[Any] | None:
    column = arrays.get(key)
    if column is not None and (column.shape != (count,) or column.dtype.kind not in kinds):
        raise CandidateError(
            f"{name}: {key} are {column.shape} {column.dtype}, beside {count} rows of codes",
            f"one value a row: ({count},)",
        )
    return column


def _check_lengths(extents: Extents, lengths: NDArray[Any]) -> None:
    wrong = extents.end - extents.begin != lengths
    if wrong.any():
        row = int(wrong.argmax())
        there = extents.end[row] - extents.begin[row]
        raise BadRowError(row, f"its length is given as {lengths[row]}, but {there} codes are there", "remake the file")


def _from_records(
    records: Iterable[tuple[int | None, dict[str, Any]]],
    source: str,
    name: str,
    book: CodeBook,
    failed: list[dict[str, Any]] | None,
) -> Iterator[Candidate]:
    total = 0
    for row, (number, record) in enumerate(records):
        if failed is not None and "error" in record and "codes" not in record:
            failed.append(record)
            continue
        try:
            candidate = candidate_of(record, row, source, book)
        except BadRowError as bad:
            raise _at_line(bad, row, number, name) from None
        total += candidate.length
        _limit(total, name)
        yield candidate


def _from_units(lines: Iterable[tuple[int, bytes]], source: str, name: str, book: CodeBook) -> Iterator[Candidate]:
    total, blank = 0, 0
    for row, (number, line) in enumerate(lines):
        text = decode_line(line, number, source)
        if not text.strip():
            blank = blank or number
            continue
        if blank:  # lines and rows must stay in step; blank lines at the end do no harm
            where = f"{name}: row {blank - 1} (line {blank})"
            raise CandidateError(f"{where}: a blank line before other candidates", "leave it out")
        try:
            candidate = _unit_line(text, row, source, book)
        except BadRowError as bad:
            raise _at_line(bad, row, number, name) from None
        total += candidate.length
        _limit(total, name)
        yield candidate


def _unit_line(text: str, row: int, source: str, book: CodeBook) -> Candidate:
    found = UNITS.fullmatch(text)
    if found is None:
        at = UNITS.match(text)
        rest = text[at.end() if at else 0 :].strip()
        raise BadRowError(row, f"not a unit at {rest[:24]!a}", "a line is <661><588>…, or <sosp><661><588>…<eosp>")
    codes = np.array(re.findall(r"[0-9]+", found[2]), dtype=np.int64)
    if not len(codes):
        raise BadRowError(row, "no units in it: an empty candidate", "leave it out, or generate with --min-codes 1")
    begin, end, stopped = (part[0] for part in settle(codes[None, :], book))
    return Candidate(codes[begin:end], stopped=bool(stopped) or found[3] is not None, index=row, source=source)


def _at_line(bad: BadRowError, row: int, number: int | None, name: str) -> CandidateError:
    where = "" if number is None else f" (line {number})"
    return CandidateError(f"{name}: row {row}{where}: {bad.reason}", bad.hint)


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    """CandidateError where an array of codes is larger than it may be; asked before it is unpacked."""
    _limit(math.prod(shape), name)
    if len(shape) in (1, 2) and shape[-1] > MAX_LENGTH + 2:  # a start and a stop beside them
        raise CandidateError(f"{name}: rows of {too_long(shape[-1])}", CUT)


def _limit(count: int, name: str) -> None:
    if count > MAX_CODES:
        raise CandidateError(f"{name}: more than {MAX_CODES:,} codes, the most that one file may hold", "split it")
