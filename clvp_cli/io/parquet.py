"""Candidates as Parquet: one row a candidate, the codes a list column. Needs pyarrow, an optional extra.

Owns the columns; must not know of models. Fields of foreign records travel as one column of JSON, `extra`.
"""

from __future__ import annotations

import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CandidateError, ClvpError
from .atomic import atomic_write
from .jsonl import dump_record, parse_line

INSTALL = "pip install 'clvp[parquet]'"
META = b"clvp"  # the key of our metadata: its presence says that `extra` is ours
BATCH = 16  # rows unpacked at a time
MAX_ROWS = 2**20
MAX_GROWTH = 2 * 2**30  # bytes that the process may take while it reads
KNOWN = ("schema", "index", "codes", "length", "stopped", "seed", "logprob")


def read_records(data: bytes, name: str, max_codes: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file with a list column `codes` as records.

    Raises CandidateError naming the file, and ClvpError where pyarrow is missing.
    """
    _, pq = _pyarrow()
    number = total = 0
    try:
        ceiling = _address_space() + MAX_GROWTH
        file = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
        _check_columns(file, name)
        ours = META in (file.schema_arrow.metadata or {})
        batches = file.iter_batches(batch_size=BATCH, use_threads=False)
        while True:
            with _below(ceiling):
                batch = next(batches, None)
                if batch is None:
                    return
                total += len(batch.column("codes").flatten())
                if total > max_codes or number + batch.num_rows > MAX_ROWS:
                    limit = f"{max_codes:,} codes" if total > max_codes else f"{MAX_ROWS:,} rows"
                    raise CandidateError(f"{name}: more than {limit}, the most that one file may hold", "split it")
                rows = batch.to_pylist()
            for row in rows:
                number += 1
                yield _record(row, name, number, ours)
    except ClvpError:
        raise
    except (MemoryError, RecursionError):
        raise CandidateError(f"{name}: a row unpacks to more than memory can hold", "split it") from None
    except Exception as error:  # a damaged file meets every kind in the library
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise CandidateError(f"{name}: not a whole Parquet file: {reason}", "copy or make it again") from None


def write_records(path: str | Path, records: Sequence[Mapping[str, Any]], meta: Mapping[str, Any] | None) -> None:
    """Write candidates' records, whole or not at all, with `meta` in the file's metadata."""
    pa, pq = _pyarrow()
    columns: dict[str, list[Any]] = {key: [record[key] for record in records] for key in KNOWN}
    types = {
        "schema": pa.int32(), "index": pa.int64(), "codes": pa.list_(pa.int32()), "length": pa.int64(),
        "stopped": pa.bool_(), "seed": pa.int64(), "logprob": pa.float64(), "extra": pa.string(),
    }  # fmt: skip
    others = [{key: value for key, value in record.items() if key not in KNOWN} for record in records]
    columns["extra"] = [dump_record(other) if other else None for other in others]
    try:
        table = pa.table({key: pa.array(values, types[key]) for key, values in columns.items()})
    except (pa.ArrowException, OverflowError) as error:
        raise ClvpError(f"{path}: a value does not fit Parquet: {error}", "write .jsonl, which keeps any") from None
    table = table.replace_schema_metadata({META: dump_record(dict(meta or {})).encode()})
    content = io.BytesIO()
    pq.write_table(table, content)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ClvpError("Parquet needs pyarrow, which is not installed", INSTALL) from None
    return pa, pq


def _check_columns(file: Any, name: str) -> None:
    names = file.schema_arrow.names
    if twice := [each for each, count in Counter(names).items() if count > 1]:
        raise CandidateError(f"{name}: two columns called {twice[0][:40]!a} in it", "give each column its own name")
    if "codes" not in names:
        raise CandidateError(f"{name}: no column called codes in it", 'a list column "codes" holds the candidates')
    if not file.metadata.num_rows:
        raise CandidateError(f"{name}: no candidates in it", 'a list column "codes" holds the candidates')
    kind = str(file.schema_arrow.field("codes").type)
    if not kind.startswith(("list<", "large_list<", "fixed_size_list<")):
        raise CandidateError(f"{name}: row 0: the column codes holds {kind[:40]}, not lists", "one list of codes a row")


def _address_space() -> int:
    """Bytes of address space that the process has taken; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


@contextmanager
def _below(ceiling: int) -> Iterator[None]:
    """Within, the process's address space stays below `ceiling` (Linux): what would need more is a MemoryError.

    A few bytes of Parquet may stand for gigabytes, in one row, and nothing tells before they are unpacked.
    """
    if not _address_space():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (ceiling if soft < 0 else min(soft, ceiling), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _record(row: dict[str, Any], name: str, number: int, ours: bool) -> dict[str, Any]:
    record = {key: value if key == "codes" else _plain(value) for key, value in row.items()}
    extra = record.pop("extra", None) if ours else None
    return {**(parse_line(extra, number, f"{name}: extra") if isinstance(extra, str) else {}), **record}


def _plain(value: Any) -> Any:
    """A column's value as JSON has it: null for NaN, text for dates and the like."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
