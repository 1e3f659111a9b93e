"""Arrays in .npy and .npz files, read without pickle and written the same bytes for the same arrays.

Owns the checks of a header against the bytes that follow, before anything is allocated. Must not know what the
arrays mean. The format is numpy's own, documented in numpy.lib.format.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ..errors import InputError
from .atomic import atomic_write
from .streams import MAX_BYTES, read_bytes, shown

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000  # numpy's own limit
PLAIN_DTYPE = re.compile(r"[<>|=]?[biufcSU][0-9]+|\|b1|\?")
SIMPLE = "save numbers alone: numpy.save(path, array, allow_pickle=False)"
AGAIN = "the file is damaged or cut short: copy or make it again"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date of a zip entry: the same arrays give the same bytes
ZIP_FAULTS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What the head of a .npy says: the array's type, shape and order, and where its bytes begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def size(self) -> int:
        """Bytes that the array takes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy(source: bytes | str | Path, name: str | None = None, max_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """Read one array; `source` is a path, "-", or the file's bytes, which messages then call `name`.

    Any order and byte order; the result is native, C-ordered, writable. Raises InputError naming the file: cut
    short, bytes after the end, larger than `max_bytes`, or an object array, which is a pickle and never unpickled.
    """
    name = name or ("array" if isinstance(source, bytes) else shown(source))
    data = source if isinstance(source, bytes) else read_bytes(source, max_bytes)
    header = parse_header(data, name)
    check_size(header, len(data), name, max_bytes)
    return _build(data, header)


def read_npz(
    source: bytes | str | Path,
    name: str | None = None,
    only: Collection[str] | None = None,
    max_bytes: int = MAX_BYTES,
    admit: Callable[[str, tuple[int, ...]], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz, or those named in `only` that are there; the others are not opened.

    `admit` is told the name and shape of each array before it is unpacked, and raises where it is not wanted.
    Raises InputError as `read_npy` does, and where the entries claim more than `max_bytes` together, or an entry
    claims another size than its array's.
    """
    name = name or ("archive" if isinstance(source, bytes) else shown(source))
    data = source if isinstance(source, bytes) else read_bytes(source, max_bytes)
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            wanted = _entries(archive, name, only)
            if sum(entry.file_size for entry in wanted.values()) > max_bytes:
                raise InputError(f"{name}: its arrays claim more than {max_bytes:,} bytes", "split it")
            for key, entry in wanted.items():
                header = _read_header(archive, entry, f"{name}: {key}", max_bytes)
                if admit:
                    admit(key, header.shape)
                arrays[key] = _read_entry(archive, entry, header, f"{name}: {key}", max_bytes)
    except InputError:
        raise
    except ZIP_FAULTS as error:
        raise InputError(f"{name}: not a whole .npz: {error or type(error).__name__}", AGAIN) from None
    return arrays


def parse_header(data: bytes, name: str) -> Header:
    """Read the head of a .npy; raises InputError for what is not one, and for types that only a pickle can hold."""
    if not data.startswith(MAGIC):
        raise InputError(f"{name}: not a .npy file", SIMPLE)
    if len(data) < 12:
        raise InputError(f"{name}: cut short in its header", AGAIN)
    wide = data[6] >= 2  # versions 2 and 3 have a 4-byte length
    start = 12 if wide else 10
    length = int.from_bytes(data[8:start], "little")
    if data[6] not in (1, 2, 3) or length > MAX_HEADER:
        raise InputError(f"{name}: its .npy header is of no known version, or too long", SIMPLE)
    if len(data) < start + length:
        raise InputError(f"{name}: cut short in its header", AGAIN)
    try:
        fields = ast.literal_eval(data[start : start + length].decode("latin-1" if data[6] < 3 else "utf-8").strip())
        descr, shape, fortran = fields["descr"], fields["shape"], fields["fortran_order"]
        whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and len(shape) <= 32
        if len(fields) != 3 or not whole or type(fortran) is not bool:
            raise ValueError
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise InputError(f"{name}: its .npy header is damaged", AGAIN) from None
    return Header(_plain_dtype(descr, name), shape, fortran, start + length)


def check_size(header: Header, total: int, name: str, max_bytes: int) -> None:
    """Raise InputError unless the header's array fills the file's `total` bytes exactly, within `max_bytes`."""
    there = total - header.offset
    shape = "×".join(map(str, header.shape)) or "one number"
    claimed = math.prod(max(n, 1) for n in header.shape) * header.dtype.itemsize  # numpy refuses (0, 2**70), too
    if claimed > max_bytes:
        raise InputError(f"{name}: its header claims {claimed:,} bytes, over the limit of {max_bytes:,}", "split it")
    if there < header.size:
        raise InputError(f"{name}: cut short: {shape} needs {header.size:,} bytes, {there:,} are there", AGAIN)
    if there > header.size:
        raise InputError(f"{name}: {there - header.size:,} bytes follow the array", AGAIN)


def write_npy(path: str | Path, array: NDArray[Any]) -> None:
    """Write one array, whole or not at all."""
    with atomic_write(path) as file:
        _put(file, array)


def write_npz(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays, whole or not at all; uncompressed and undated, so that equal arrays give equal bytes."""
    with atomic_write(path) as file:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                entry = zipfile.ZipInfo(f"{name}.npy", EPOCH)
                entry.create_system, entry.external_attr = 3, 0o644 << 16
                with archive.open(entry, "w", force_zip64=array.nbytes >= 2**31) as member:
                    _put(member, array)
        file.write(content.getbuffer())


def json_array(value: Any) -> NDArray[Any]:
    """A JSON value as the 0-d string array that .npz keeps it in."""
    return np.array(json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True))


def _put(file: IO[bytes], array: NDArray[Any]) -> None:
    if array.dtype.hasobject:
        raise TypeError("an object array would be pickled")
    array = np.ascontiguousarray(array) if array.ndim else array  # ascontiguousarray makes 0-d arrays 1-d
    npy_format.write_array_header_1_0(file, npy_format.header_data_from_array_1_0(array))
    file.write(array.tobytes())


def _build(data: bytes, header: Header) -> NDArray[Any]:
    flat = np.frombuffer(data, header.dtype, math.prod(header.shape), header.offset)
    shaped = flat.reshape(header.shape[::-1]).T if header.fortran else flat.reshape(header.shape)
    return np.array(shaped, dtype=header.dtype.newbyteorder("="), order="C")  # a copy: writable, native


def _plain_dtype(descr: Any, name: str) -> np.dtype[Any]:
    if isinstance(descr, str) and descr.lstrip("<>|=").startswith("O"):
        raise InputError(
            f"{name}: refused: it holds Python objects, which is a pickle (or a ragged array); nothing was executed",
            SIMPLE,
        )
    try:
        if not isinstance(descr, str) or not PLAIN_DTYPE.fullmatch(descr):
            raise TypeError
        dtype = np.dtype(descr)
        if dtype.itemsize == 0:
            raise TypeError
    except (TypeError, ValueError):
        raise InputError(f"{name}: its type {str(descr)[:40]!a} is not a plain number or string", SIMPLE) from None
    return dtype


def _entries(archive: zipfile.ZipFile, name: str, only: Collection[str] | None) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        key = entry.filename.removesuffix(".npy")
        if key == entry.filename or (only is not None and key not in only):
            continue
        if key in found:
            raise InputError(f"{name}: holds two arrays named {key!a}", AGAIN)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{name}: {key!a} is packed in a way numpy does not use", "write it with numpy.savez")
        found[key] = entry
    return found


def _read_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, max_bytes: int) -> Header:
    with archive.open(entry) as member:
        header = parse_header(member.read(MAX_HEADER + 12), name)
    check_size(header, entry.file_size, name, max_bytes)  # what the zip claims must be what the array takes
    return header


def _read_entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, header: Header, name: str, max_bytes: int
) -> NDArray[Any]:
    with archive.open(entry) as member:
        data = member.read(entry.file_size)
    check_size(header, len(data), name, max_bytes)  # and what came out
    return _build(data, header)
