"""JSON lines: strict in, one line a record out, and files that a job takes up again."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from clvp_cli.errors import InputError, OutputError
from clvp_cli.io.jsonl import JsonlAppender, dump_record, read_jsonl, write_jsonl


def test_objects_come_with_their_line_numbers(tmp_path: Path) -> None:
    """Blank lines are skipped and counted; a BOM, CRLF, doubled keys and a missing last line end are tolerated."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": 1, "a": 2}\n{"b": "\xc3\xa9\\ud83d\\ude00"}')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (3, {"a": 2}), (4, {"b": "é😀"})]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"a": [1, 2', "line 2 is cut short"),
        (b'{"a": [1, 2\n', "line 2 is not JSON"),
        (b"[1, 2]\n", "line 2 is not a JSON object but an array"),
        (b'"text"\n', "but a string"),
        (b"7\n", "but a number"),
        (b"true\n", "but true or false"),
        (b"null\n", "but null"),
        (b'{"a": NaN}\n', "NaN is no JSON number"),
        (b'{"a": -Infinity}\n', "-Infinity is no JSON number"),
        (b'{"a": 1e999}\n', "1e999 is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", "line 2 is not JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "nested deeper"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}\n", "nested deeper"),
        (b'{"a": ' * 80 + b"1" + b"}" * 80 + b"\n", "nested deeper"),
        (b'{"a": "\xff"}\n', "line 2 is not UTF-8"),
        (b'{"a": 1} {"b": 2}\n', "line 2 is not JSON: Extra data"),
        (b"{'a': 1}\n", "line 2 is not JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: bytes, expected: str) -> None:
    """What is not one whole, finite, shallow JSON object raises InputError with file and line."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"good": 1}\n' + line)
    records = read_jsonl(path)
    assert next(records) == (1, {"good": 1})
    with pytest.raises(InputError, match=expected) as caught:
        next(records)
    assert "r.jsonl" in caught.value.message and "\n" not in caught.value.message and caught.value.hint


def test_many_shallow_brackets_are_fine(tmp_path: Path) -> None:
    """The depth counts, not the number of lists."""
    record = {"a": [[1]] * 500}
    path = tmp_path / "r.jsonl"
    path.write_text(dump_record(record))
    assert list(read_jsonl(path)) == [(1, record)]


def test_a_record_is_one_line_of_plain_json() -> None:
    """Letters stay letters, numpy becomes plain, line breaks are escaped, NaN is refused."""
    line = dump_record({"é": "a\nb", "n": np.int64(3), "x": np.float32(0.5), "c": np.array([1, 2]), "p": Path("f")})
    assert line == '{"é": "a\\nb", "n": 3, "x": 0.5, "c": [1, 2], "p": "f"}'
    with pytest.raises(ValueError):
        dump_record({"x": float("nan")})
    with pytest.raises(TypeError):
        dump_record({"x": object()})


def test_half_a_surrogate_pair_survives() -> None:
    """A string that UTF-8 cannot hold is written escaped."""
    record = json.loads('{"a": "\\ud800 é"}')
    line = dump_record(record)
    assert json.loads(line.encode("utf-8")) == record


def test_records_are_written_to_a_file_or_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ "-" is stdout and nothing else goes there; a path gets the same lines."""
    records = [{"a": 1}, {"b": "é"}]
    write_jsonl(tmp_path / "r.jsonl", records)
    write_jsonl("-", iter(records))
    assert capsys.readouterr().out == (tmp_path / "r.jsonl").read_text("utf-8") == '{"a": 1}\n{"b": "é"}\n'


def test_a_failure_among_the_records_leaves_the_earlier_file(tmp_path: Path) -> None:
    """A generator of records that fails leaves what was there."""
    path = tmp_path / "r.jsonl"
    path.write_text("earlier")
    with pytest.raises(ZeroDivisionError):
        write_jsonl(path, ({"a": 1 // n} for n in (1, 0)))
    assert path.read_text() == "earlier" and len(list(tmp_path.iterdir())) == 1


# Appending


def test_a_job_takes_up_where_it_ended(tmp_path: Path) -> None:
    """A last line cut short is dropped, the ids of the others are done, and new records follow."""
    path = tmp_path / "job.jsonl"
    path.write_bytes(b'{"id": "a"}\n{"id": "b"}\n{"id": "c", "te')
    with JsonlAppender(path) as job:
        assert job.done == {"a", "b"}
        job.append({"id": "c", "text": "é"})
        assert path.read_bytes().endswith('{"id": "c", "text": "é"}\n'.encode())  # at once, not on closing
        assert "c" in job.done
    assert [record["id"] for _, record in read_jsonl(path)] == ["a", "b", "c"]


def test_a_whole_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    """Only the line end was lost: the record counts, and the end is added."""
    path = tmp_path / "job.jsonl"
    path.write_bytes(b'{"n": 1}')
    with JsonlAppender(path, key="n") as job:
        assert job.done == {1}
        job.append({"n": 2})
    assert path.read_bytes() == b'{"n": 1}\n{"n": 2}\n'


@pytest.mark.parametrize("tail", [b"\x00\x00\x00", b"\xc3", b'{"id": "b', b"{", b"[1]"])
def test_any_torn_tail_is_dropped(tmp_path: Path, tail: bytes) -> None:
    """Whatever a crash left after the last line end is taken away, at every kind of cut."""
    path = tmp_path / "job.jsonl"
    path.write_bytes(b'{"id": "a"}\n' + tail)
    with JsonlAppender(path) as job:
        job.append({"id": "b"})
    assert path.read_bytes() == b'{"id": "a"}\n{"id": "b"}\n'


def test_damage_in_the_middle_is_not_dropped(tmp_path: Path) -> None:
    """A broken line with lines after it, or one without the id, is an error that names it; nothing is changed."""
    path = tmp_path / "job.jsonl"
    for content, expected in {b'{"id": 1}\n{"id\n{"id": 3}\n': "line 2", b'{"x": 1}\n': 'line 1 has no "id"'}.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=expected), JsonlAppender(path):
            pass
        assert path.read_bytes() == content


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    """Two jobs do not write one file at once; after the first has ended, the second may."""
    path = tmp_path / "job.jsonl"
    with JsonlAppender(path) as first:
        first.append({"id": 1})
        with pytest.raises(OutputError, match="another run is writing"), JsonlAppender(path):
            pass
    with JsonlAppender(path) as second:
        assert second.done == {1}


def test_a_file_that_its_run_has_moved_away_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that opened the file just before another finished it does not write what nobody would find."""
    path = tmp_path / "job.jsonl"
    monkeypatch.setattr("clvp_cli.io.jsonl.lock", lambda descriptor, at: path.unlink())
    with pytest.raises(OutputError, match="finished"), JsonlAppender(path):
        pass


def test_a_record_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle of a record: OutputError, and the file ends with the record before."""
    path = tmp_path / "job.jsonl"
    real, calls = os.write, []

    def fill(descriptor: int, data: memoryview) -> int:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, bytes(data)[:5])

    with JsonlAppender(path) as job:
        job.append({"id": 1})
        with monkeypatch.context() as patch:
            patch.setattr("clvp_cli.io.jsonl.os.write", fill)
            with pytest.raises(OutputError, match="the disk is full"):
                job.append({"id": 2})
        assert job.done == {1}
        job.append({"id": 3})
    assert path.read_bytes() == b'{"id": 1}\n{"id": 3}\n'


def test_places_that_cannot_be_appended_to_are_explained(tmp_path: Path) -> None:
    """A missing directory, a directory, and a record without its id are OutputErrors."""
    for path, expected in {tmp_path / "no" / "f": "does not exist", tmp_path: "is a directory"}.items():
        with pytest.raises(OutputError, match=expected), JsonlAppender(path):
            pass
    with JsonlAppender(tmp_path / "job") as job, pytest.raises(OutputError, match='without "id"'):
        job.append({"text": "x"})


def test_stdin_is_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "-" is stdin, and messages call it so."""

    class Stdin:
        closed = False
        buffer = io.BytesIO(b'{"a": 1}\n{')

    monkeypatch.setattr("sys.stdin", Stdin())
    records = read_jsonl("-")
    assert next(records) == (1, {"a": 1})
    with pytest.raises(InputError, match="stdin: line 2 is cut short"):
        next(records)
