"""Candidates as Parquet: one row a candidate, the codes a list column. Needs pyarrow, an optional extra.

Owns the columns; must not know of models. Fields of foreign records travel as one column of JSON, `extra`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CandidateError, ClvpError, InputError
from .atomic import atomic_write
from .jsonl import dump_record, parse_line

INSTALL = "pip install 'clvp[parquet]'"
META = b"clvp"  # the key of our metadata: its presence says that `extra` is ours
KNOWN = ("schema", "index", "codes", "length", "stopped", "seed", "logprob")


def read_records(data: bytes, name: str, max_codes: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file with a list column `codes` as records.

    Raises CandidateError naming the file, and ClvpError where pyarrow is missing.
    """
    pa, pq = _pyarrow()
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        _check_columns(file, name, max_codes)
        ours = META in (file.schema_arrow.metadata or {})
        rows = (row for batch in file.iter_batches(batch_size=1024) for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield _record(row, name, number, ours)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
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


def _check_columns(file: Any, name: str, max_codes: int) -> None:
    schema = file.schema_arrow
    if "codes" not in schema.names:
        raise CandidateError(f"{name}: no column called codes in it", 'a list column "codes" holds the candidates')
    if not file.metadata.num_rows:
        raise CandidateError(f"{name}: no candidates in it", 'a list column "codes" holds the candidates')
    if not str(schema.field("codes").type).startswith(("list<", "large_list<", "fixed_size_list<")):
        found = schema.field("codes").type
        raise CandidateError(f"{name}: row 0: the column codes holds {found}, not lists", "one list of codes a row")
    total = 0
    for group in range(file.metadata.num_row_groups):  # what the pages claim to hold, before any is unpacked
        described = file.metadata.row_group(group)
        total += max(described.column(at).num_values for at in range(described.num_columns))
    if total > max_codes:
        raise CandidateError(f"{name}: more than {max_codes:,} codes, the most that one file may hold", "split it")


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
