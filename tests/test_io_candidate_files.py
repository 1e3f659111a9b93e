"""Candidate files out: what is written comes back the same, and nothing is lost on the way."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clvp_cli.errors import ClvpError, OutputError, UsageError
from clvp_cli.io.candidates import KINDS, CodeBook, output_kind, read_candidates, read_meta, write_candidates
from clvp_cli.records import Candidate

BOOK = CodeBook(size=8192, start=8192, stop=8193)
SUFFIXES = sorted(KINDS)


def made(codes: list[int], stopped: bool, **kwargs: object) -> Candidate:
    """A candidate of these codes."""
    return Candidate(np.array(codes, dtype=np.int64), stopped, **kwargs)


def need(suffix: str) -> None:
    """Skip where the optional package for this kind is missing."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_random_candidates_survive_the_trip(tmp_path: Path, suffix: str) -> None:
    """Codes and stops come back exactly from every kind of file, whatever their lengths."""
    need(suffix)
    rng = np.random.default_rng(0)
    for trial in range(25):
        lengths = rng.integers(1, 40, rng.integers(1, 9))
        written = [
            made(rng.integers(0, 8192, n).tolist(), bool(rng.integers(2)), index=row) for row, n in enumerate(lengths)
        ]
        path = tmp_path / f"{trial}{suffix}"
        write_candidates(path, written, BOOK, meta={"trial": trial})
        found = read_candidates(path, BOOK)
        assert [(c.codes.tolist(), c.stopped, c.index) for c in found] == [
            (c.codes.tolist(), c.stopped, c.index) for c in written
        ]
    assert len(list(tmp_path.iterdir())) == 25


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "rows",
    [
        [([5], False)],
        [([5], True)],
        [([0, 0, 0], False), ([0], True), ([0, 0], False)],
        [([1, 2, 3], True), ([1], False)],
        [([8191] * 3, True), ([8191] * 4, False)],
    ],
)
def test_edges_survive_the_trip(tmp_path: Path, suffix: str, rows: list[tuple[list[int], bool]]) -> None:
    """Single codes, zeros at the end, the longest row stopped or not."""
    need(suffix)
    path = tmp_path / f"c{suffix}"
    write_candidates(path, [made(*row) for row in rows], BOOK)
    assert [(c.codes.tolist(), c.stopped) for c in read_candidates(path, BOOK)] == rows


@pytest.mark.parametrize("suffix", [".npz", ".jsonl", ".parquet"])
def test_seeds_and_log_probabilities_survive(tmp_path: Path, suffix: str) -> None:
    """What is known of a candidate comes back, and what is not known stays unknown."""
    need(suffix)
    path = tmp_path / f"c{suffix}"
    written = [made([1], True, index=4, seed=2**40, logprob=-2.5), made([2], False, index=9)]
    write_candidates(path, written, BOOK)
    found = read_candidates(path, BOOK)
    assert [(c.index, c.seed, c.logprob) for c in found] == [(4, 2**40, -2.5), (9, None, None)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_foreign_fields_survive(tmp_path: Path, suffix: str) -> None:
    """Fields of a foreign record pass through untouched."""
    need(suffix)
    extra = {"speaker": "é", "nested": {"x": [1, None, 2.5, "a"]}, "flag": True}
    path = tmp_path / f"c{suffix}"
    write_candidates(path, [made([1], True, extra=extra), made([2], True)], BOOK)
    assert [dict(c.extra) for c in read_candidates(path, BOOK)] == [extra, {}]


def test_npz_says_how_it_was_made(tmp_path: Path) -> None:
    """`meta` is a JSON string that numpy reads without pickle; equal candidates give equal bytes."""
    for name in ("a.npz", "b.npz"):
        write_candidates(tmp_path / name, [made([1, 2], True), made([3], False)], BOOK, meta={"text": "é", "seed": 7})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as held:
        assert json.loads(str(held["meta"])) == {"text": "é", "seed": 7} == read_meta(tmp_path / "a.npz")
        assert held["codes"].tolist() == [[1, 2, 8193], [3, -1, -1]]
        assert held["lengths"].tolist() == [2, 1] and held["stopped"].tolist() == [True, False]
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_the_layouts_are_those_of_the_page(tmp_path: Path) -> None:
    """.npy is padded to the right, lines of units carry their marks, records have their fields."""
    rows = [made([1, 2], True, seed=3, logprob=-0.5), made([3], False, index=1)]
    for suffix in (".npy", ".txt", ".jsonl"):
        write_candidates(tmp_path / f"c{suffix}", rows, BOOK)
    assert np.load(tmp_path / "c.npy", allow_pickle=False).tolist() == [[1, 2, 8193], [3, -1, -1]]
    assert (tmp_path / "c.txt").read_text() == "<sosp><1><2><eosp>\n<sosp><3>\n"
    first = json.loads((tmp_path / "c.jsonl").read_text().splitlines()[0])
    assert first == {
        "schema": 1, "index": 0, "codes": [1, 2], "length": 2, "stopped": True, "seed": 3, "logprob": -0.5,
    }  # fmt: skip


def test_a_dash_writes_jsonl_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """ "-" puts the records on stdout and nothing else, and what it wrote can be read from stdin."""
    write_candidates("-", [made([1, 2], True)], BOOK)
    out = capsys.readouterr().out
    found = read_candidates("-", BOOK, data=out.encode())
    assert out.count("\n") == 1 and found[0].codes.tolist() == [1, 2] and found[0].stopped
    write_candidates("-", [made([1], False)], BOOK, kind="txt")
    assert capsys.readouterr().out == "<sosp><1>\n"


def test_the_suffix_or_the_kind_decides(tmp_path: Path) -> None:
    """Suffixes count in any case; a kind overrides them; an unknown one is a UsageError that lists the known."""
    assert output_kind("a.NPY") == "npy" and output_kind("a.bin", "jsonl") == "jsonl" and output_kind("-") == "jsonl"
    assert output_kind("/dev/null") == "jsonl" == output_kind("/dev/stdout")
    for path, kind in {("a.wav", None), ("a", None), ("a.npy", "wav"), ("-", "npy"), ("-", "npz")}:
        with pytest.raises(UsageError) as caught:
            write_candidates(tmp_path / path if path != "-" else path, [made([1], True)], BOOK, kind=kind)
        assert "jsonl" in f"{caught.value.hint}"
    write_candidates(tmp_path / "a.bin", [made([1], True)], BOOK, kind="npy")
    assert read_candidates(tmp_path / "a.bin", BOOK)[0].stopped


def test_what_cannot_be_written_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    """No candidates, a code outside the vocabulary, a seed that does not fit: the earlier file stays."""
    path = tmp_path / "c.npz"
    path.write_bytes(b"earlier")
    for rows, expected in (
        ([], "no candidates"),
        ([made([8192], True)], "row 0: a code outside"),
        ([made([1], True), made([-1], True)], "row 1: a code outside"),
        ([made([1], True, seed=2**64 - 1)], "a seed does not fit"),
    ):
        with pytest.raises(OutputError, match=expected):
            write_candidates(path, rows, BOOK)
    assert path.read_bytes() == b"earlier" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_earlier_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Whichever kind is written: OutputError, the earlier file intact, no litter."""
    need(suffix)
    path = tmp_path / f"c{suffix}"
    write_candidates(path, [made([1], True)], BOOK)
    earlier = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("clvp_cli.io.atomic.os.fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        write_candidates(path, [made([2] * 9, True)], BOOK)
    assert path.read_bytes() == earlier and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_empty_candidate_is_written_but_not_lost_silently(tmp_path: Path) -> None:
    """A candidate that stopped at once can be saved; reading names its row."""
    path = tmp_path / "c.npy"
    write_candidates(path, [made([1, 2], True), made([], True)], BOOK)
    with pytest.raises(ClvpError, match="row 1: no codes"):
        read_candidates(path, BOOK)


@pytest.mark.parametrize("suffix", [".npz", ".jsonl", ".parquet"])
def test_a_file_that_says_of_a_candidate_that_it_stopped_at_once_is_read(tmp_path: Path, suffix: str) -> None:
    """Where length 0 and stopped stand in the file, an empty candidate is no fault; without them it is one."""
    need(suffix)
    path = tmp_path / f"c{suffix}"
    for rows in ([made([1, 2], True), made([], True)], [made([], True)]):
        write_candidates(path, rows, BOOK)
        found = [(c.codes.tolist(), c.stopped) for c in read_candidates(path, BOOK)]
        assert found == [(row.codes.tolist(), True) for row in rows]
    write_candidates(path, [made([], False)], BOOK)
    with pytest.raises(ClvpError, match=r"row 0.*no codes"):
        read_candidates(path, BOOK)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading or writing .parquet without the extra is an error with the command that installs it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "c.parquet"
    path.write_bytes(b"PAR1")
    for act in (lambda: read_candidates(path, BOOK), lambda: write_candidates(path, [made([1], True)], BOOK)):
        with pytest.raises(ClvpError, match="pyarrow") as caught:
            act()
        assert caught.value.hint == "pip install 'clvp[parquet]'"


def test_foreign_parquet_is_read_and_checked(tmp_path: Path) -> None:
    """A list column of any integer type is read with its other columns; other types are errors naming the row."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "c.parquet"

    def table(codes: list[object], kind: object, **more: object) -> None:
        pq.write_table(pa.table({"codes": pa.array(codes, kind), **more}), path)

    table([[1, 2, 8193], [3, -1]], pa.list_(pa.int16()), text=["a", "b"], when=pa.array([0, None], pa.date32()))
    found = read_candidates(path, BOOK)
    assert [(c.codes.tolist(), c.stopped, c.extra["text"]) for c in found] == [([1, 2], True, "a"), ([3], False, "b")]
    assert found[0].extra["when"] == "1970-01-01" and found[1].extra["when"] is None
    bad: list[tuple[list[object], object, str]] = [
        ([[1, 9000]], pa.list_(pa.int32()), "row 0: code 9000 at position 1"),
        ([[1], [1.0]], pa.list_(pa.float32()), "row 0: 1.0 at position 0"),
        ([[1], []], pa.list_(pa.int32()), "row 1: no codes"),
        ([[1], None], pa.list_(pa.int32()), 'row 1: "codes" is not a list but null'),
        ([[1, None]], pa.list_(pa.int32()), "row 0: null at position 1"),
        ([[[1]]], pa.list_(pa.list_(pa.int32())), "row 0: a list at position 0"),
        ([1, 2], pa.int32(), "row 0: the column codes holds int32, not lists"),
        ([], pa.list_(pa.int32()), "no candidates in it"),
    ]
    for codes, kind, expected in bad:
        table(codes, kind)
        with pytest.raises(ClvpError, match=expected):
            read_candidates(path, BOOK)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + b"PAR1")
    with pytest.raises(ClvpError, match="not a whole Parquet file"):
        read_candidates(path, BOOK)


def test_a_parquet_that_claims_too_many_codes_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of one value pack millions of codes into a few bytes: the claim is checked first."""
    pytest.importorskip("pyarrow")
    path = tmp_path / "c.parquet"
    write_candidates(path, [made([7] * 100, True)] * 10, BOOK)
    monkeypatch.setattr("clvp_cli.io.candidates.MAX_CODES", 500)
    with pytest.raises(ClvpError, match="more than 500 codes"):
        read_candidates(path, BOOK)


def test_a_damaged_parquet_is_an_error_and_no_crash(tmp_path: Path) -> None:
    """Single bits flipped, in the description of columns above all: an error, or candidates; never a dead process."""
    pytest.importorskip("pyarrow")
    path = tmp_path / "c.parquet"
    write_candidates(path, [made([1, 2], True, extra={"text": "a"}), made([3], False)], BOOK)
    code = (
        "import random, sys\nfrom clvp_cli.errors import CandidateError\nfrom clvp_cli.io.candidates import *\n"
        f"whole = open({str(path)!r}, 'rb').read()\nrandom.seed(0)\n"
        "for bit in random.sample(range(8 * len(whole)), 700):\n"
        "    data = bytearray(whole)\n    data[bit // 8] ^= 1 << bit % 8\n"
        "    try:\n        read_candidates('c.parquet', CodeBook(8192, 8192, 8193), data=bytes(data))\n"
        "    except CandidateError as error:\n        assert len(error.message) < 250 and '\\n' not in error.message\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_parquet_that_unpacks_to_gigabytes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes that stand for more than memory should hold, in one row or in many, are not unpacked."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    if not Path("/proc/self/statm").exists():
        pytest.skip("the system does not tell how much memory a process has")
    path = tmp_path / "c.parquet"
    monkeypatch.setattr("clvp_cli.io.parquet.MAX_GROWTH", 2**28)
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["a" * 10**6]))
    for column in (texts, pa.ListArray.from_arrays(pa.array([0, 1000], pa.int32()), texts)):
        codes = pa.array([[1]] * len(column), pa.list_(pa.int32()))
        pq.write_table(pa.table({"codes": codes, "text": column}), path, store_schema=False)
        assert path.stat().st_size < 100_000
        with pytest.raises(ClvpError, match="unpacks to more than memory can hold"):
            read_candidates(path, BOOK)
    monkeypatch.setattr("clvp_cli.io.parquet.MAX_ROWS", 999)
    pq.write_table(pa.table({"codes": pa.array([[1]] * 1000, pa.list_(pa.int32()))}), path)
    with pytest.raises(ClvpError, match="more than 999 rows"):
        read_candidates(path, BOOK)


def test_two_parquet_columns_of_one_name_are_named(tmp_path: Path) -> None:
    """A second column `codes`, or any other twice, is an error that says which."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    codes = pa.array([[1]], pa.list_(pa.int32()))
    for names in (["codes", "codes"], ["codes", "a", "a"]):
        pq.write_table(pa.table([codes] * len(names), names=names), tmp_path / "c.parquet")
        with pytest.raises(ClvpError, match=f"two columns called '{names[-1]}'"):
            read_candidates(tmp_path / "c.parquet", BOOK)


def test_reading_and_writing_load_no_torch(tmp_path: Path) -> None:
    """The whole room works without torch, librosa or pyarrow being imported."""
    code = (
        "import sys\nfrom clvp_cli.io.candidates import *\nfrom clvp_cli.io import jsonl, arrays, streams\n"
        f"book = CodeBook(8192, 8192, 8193)\nrows = read_candidates({str(tmp_path / 'a.jsonl')!r}, book)\n"
        f"for kind in ('npy', 'npz', 'txt', 'jsonl'): write_candidates({str(tmp_path)!r} + '/b.' + kind, rows, book)\n"
        "print(sorted({'torch', 'librosa', 'pyarrow', 'soundfile'} & set(sys.modules)))"
    )
    write_candidates(tmp_path / "a.jsonl", [made([1], True)], BOOK)
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
