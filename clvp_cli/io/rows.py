"""One row of codes, or a whole array of them: what may stand in it, where it begins and ends.

Owns the rules of a candidate's codes (start, stop, padding, vocabulary) and of a record's known fields. Must not
know of files: a fault carries the row's number, and whoever reads the file adds its name.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..records import MAX_LENGTH, Candidate

PAD = -1
INT64_MAX = np.iinfo(np.int64).max
WHOLE = "codes are whole numbers: save them as integers, without NaN and without true or false"
CUT = "cut it into sentences"
OTHER_MODEL = "were these codes made for another model? -m names the model"
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class CodeBook:
    """The codes that a candidate may hold: 0 … size − 1, and the two that mark its ends."""

    size: int  # the speech encoder's vocabulary, 8192 in the published model
    start: int
    stop: int

    def holds(self, codes: Ints) -> bool:
        """Whether codes (T,) are those of a candidate; a model that may draw the start code makes others."""
        return not len(codes) or bool(codes.min() >= 0 and codes.max() < self.size)


class BadRowError(Exception):
    """A row that cannot be used. The reader of the file turns it into a CandidateError with the file's name."""

    def __init__(self, row: int, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.row, self.reason, self.hint = row, reason, hint


class Extents(NamedTuple):
    """Where each row's codes begin and end, and whether a stop code follows them; all (N,)."""

    begin: Ints
    end: Ints
    stopped: Flags


def as_codes(array: NDArray[Any]) -> Ints:
    """An array (N, T) of any integer type as int64; raises BadRowError for floats, NaN and truth values."""
    if array.dtype.kind == "f":
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            raise BadRowError(int(bad[0, 0]), f"{array[tuple(bad[0])]} at position {bad[0, 1]} is not a code", WHOLE)
        raise BadRowError(0, f"codes are {array.dtype}, not integers", WHOLE)
    if array.dtype.kind not in "iu":
        kind = "true or false" if array.dtype.kind == "b" else str(array.dtype)
        raise BadRowError(0, f"codes are {kind}, not integers", WHOLE)
    if array.dtype.kind == "u" and array.dtype.itemsize == 8:
        array = np.minimum(array, np.uint64(INT64_MAX))  # beyond any vocabulary; a plain cast would wrap around
    return array.astype(np.int64, copy=False)


def settle(codes: Ints, book: CodeBook, silent: Flags | None = None) -> Extents:
    """Find where each row of `codes` (N, T) begins and ends; raises BadRowError for the first fault.

    One leading start code is left out. A row ends at its first stop code, or where its padding of −1 begins; what
    follows a stop is not part of the candidate, but must still be codes, stops or padding. A row without codes is a
    fault, unless `silent` (N,) says of it that it stopped at once.
    """
    count, width = codes.shape
    if not width:
        raise BadRowError(0, "no codes in it", "a candidate has at least one code")
    started = codes[:, 0] == book.start
    stops, pads = codes == book.stop, codes == PAD
    known = ((codes >= 0) & (codes < book.size)) | stops | pads
    known[:, 0] |= started
    if not known.all():
        row, at = np.unravel_index(int(known.argmin()), known.shape)
        raise _outside(int(row), int(at), int(codes[row, at]), book)
    gap = pads[:, :-1] & ~pads[:, 1:]
    if gap.any():
        row, at = np.unravel_index(int(gap.argmax()), gap.shape)
        raise BadRowError(
            int(row), f"−1 at position {at} is followed by {codes[row, at + 1]}", "−1 is padding: it ends a row"
        )
    ended = stops | pads
    end = np.where(ended.any(axis=1), ended.argmax(axis=1), width)
    begin = started.astype(np.int64)
    nothing = (end <= begin) if silent is None else (end <= begin) & ~silent
    if nothing.any():
        raise empty(int(nothing.argmax()))
    long = end - begin > MAX_LENGTH
    if long.any():
        which = int(long.argmax())
        raise BadRowError(which, too_long(int(end[which] - begin[which])), CUT)
    return Extents(begin, end, stops[np.arange(count), np.minimum(end, width - 1)] & (end < width))


def keep_lengths(codes: Ints, lengths: Ints, book: CodeBook) -> Ints:
    """Rows cut to stated lengths: what follows becomes −1 or stays a stop. Padding may be the stop code, −1 or 0.

    Raises BadRowError where a length is impossible, or codes go on after it.
    """
    begin = (codes[:, :1] == book.start).astype(np.int64)
    impossible = (lengths < 0) | (lengths > codes.shape[1] - begin.sum(axis=1))
    if impossible.any():
        row = int(impossible.argmax())
        raise BadRowError(row, f"its length is given as {lengths[row]}, of {codes.shape[1]} codes", "remake the file")
    tail = np.arange(codes.shape[1])[None, :] >= begin + lengths[:, None]
    zero = codes == 0
    more = tail & ~(zero | (codes == book.stop) | (codes == PAD))
    if more.any():
        row = int(more.any(axis=1).argmax())
        raise BadRowError(row, f"its length is given as {lengths[row]}, but codes follow", "remake the file")
    kept: Ints = np.where(tail & zero, PAD, codes)
    return kept


def candidate_of(record: Mapping[str, Any], row: int, source: str, book: CodeBook) -> Candidate:
    """The candidate that a JSON record describes; raises BadRowError. Fields that are not ours go to `extra`."""
    codes = _codes_of(record, row)
    silent = record.get("length") == 0 and record.get("stopped") is True
    begin, end, stopped = (part[0] for part in settle(codes[None, :], book, np.array([silent])))
    length = _whole(record, "length", row)
    if length is not None and length != end - begin:
        raise BadRowError(row, f'"length" is {length}, but {end - begin} codes are there', "remake the record")
    said = record.get("stopped")
    if said is not None and type(said) is not bool:
        raise BadRowError(row, f'"stopped" is {str(said)[:20]!a}, not true or false')
    if said is False and stopped:
        raise BadRowError(row, f'"stopped" is false, but the stop code {book.stop} is there', "remake the record")
    index = _whole(record, "index", row)
    return Candidate(
        codes=codes[begin:end],
        stopped=bool(stopped) or said is True,
        index=row if index is None else index,
        source=source,
        seed=_whole(record, "seed", row, signed=True),
        logprob=_number(record, "logprob", row),
        extra=_extra(record),
    )


def empty(row: int) -> BadRowError:
    """A candidate without codes."""
    return BadRowError(
        row, "no codes before its end: an empty candidate", "leave it out, or generate with --min-codes 1"
    )


def too_long(length: int) -> str:
    """What is wrong with so many codes in a row."""
    return f"{length:,} codes, over the {MAX_LENGTH:,} (six minutes of speech) that a candidate may have"


def _codes_of(record: Mapping[str, Any], row: int) -> Ints:
    if "codes" not in record:
        if "score" in record or "rank" in record:
            raise BadRowError(
                row, "a scored record without codes", "give the candidates that were scored; clvp generate keeps codes"
            )
        raise BadRowError(row, 'no "codes" in it', 'a record is {"codes": [661, 588, …], …}')
    codes = record["codes"]
    if not isinstance(codes, list):
        raise BadRowError(row, f'"codes" is not a list but {_name(codes)}', 'a record is {"codes": [661, 588, …], …}')
    if not codes:
        return np.array([PAD])
    if set(map(type, codes)) != {int}:
        at = next(at for at, code in enumerate(codes) if type(code) is not int)
        raise BadRowError(row, f"{_name(codes[at])} at position {at} is not a code", WHOLE)
    try:
        return np.array(codes, dtype=np.int64)
    except OverflowError:
        raise BadRowError(row, "a code is far outside the speech vocabulary", OTHER_MODEL) from None


def _extra(record: Mapping[str, Any]) -> dict[str, Any]:
    taken = {"codes", "index", "length", "stopped", "seed", "logprob"}
    if type(record.get("schema")) is int:
        taken.add("schema")
    if "rank" in record and "signals" in record:  # an earlier ranking's verdict would contradict the next one's
        taken |= {"rank", "ranked_by", "rank_weights", "notes"}
    return {name: value for name, value in record.items() if name not in taken}


def _whole(record: Mapping[str, Any], name: str, row: int, *, signed: bool = False) -> int | None:
    value = record.get(name)
    if value is None:
        return None
    if type(value) is not int or (value < 0 and not signed):
        raise BadRowError(row, f'"{name}" is {_name(value)}, not a whole number')
    return value


def _number(record: Mapping[str, Any], name: str, row: int) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not -sys.float_info.max <= value <= sys.float_info.max:
        raise BadRowError(row, f'"{name}" is {_name(value)}, not a number')
    return float(value)


def _outside(row: int, at: int, code: int, book: CodeBook) -> BadRowError:
    if code == book.start:
        return BadRowError(row, f"the start code {code} at position {at}", "it may stand at the beginning alone")
    return BadRowError(
        row, f"code {code} at position {at} is outside the speech vocabulary, 0 … {book.size - 1}", OTHER_MODEL
    )


def _name(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else ascii(value)[:24]
