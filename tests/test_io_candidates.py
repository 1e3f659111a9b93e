"""Candidate files in: every kind, every way in which one can be wrong."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from clvp_cli.errors import CandidateError
from clvp_cli.io.candidates import CodeBook, candidate_kind, read_candidates, read_meta

BOOK = CodeBook(size=8192, start=8192, stop=8193)
START, STOP = BOOK.start, BOOK.stop


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


def npy(array: object, **kwargs: object) -> bytes:
    """What numpy.save writes."""
    file = io.BytesIO()
    np.save(file, np.asarray(array), **kwargs)
    return file.getvalue()


def npz(**arrays: object) -> bytes:
    """What numpy.savez writes."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def lines(*records: object) -> bytes:
    """Records as JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def read(tmp_path: Path, data: bytes, name: str = "c.any") -> list[tuple[list[int], bool]]:
    """Codes and stops of a file with this content."""
    path = tmp_path / name
    path.write_bytes(data)
    return [(candidate.codes.tolist(), candidate.stopped) for candidate in read_candidates(path, BOOK)]


# What is read

TWO = [([1, 2, 3], True), ([4, 5, 6, 0], False)]


@pytest.mark.parametrize(
    "data",
    [
        npy([[1, 2, 3, STOP], [4, 5, 6, 0]]),
        npy([[1, 2, 3, STOP, STOP], [4, 5, 6, 0, -1]]),
        npy([[START, 1, 2, 3, STOP], [START, 4, 5, 6, 0]]),
        npy([[START, 1, 2, 3, STOP], [4, 5, 6, 0, -1]]),
        npy([[1, 2, 3, STOP, -1, -1], [4, 5, 6, 0, -1, -1]]),
        npy([[1, 2, 3, STOP, 9], [4, 5, 6, 0, -1]]),
        npy(np.array([[1, 2, 3, STOP], [4, 5, 6, 0]], dtype=">u2")),
        npy(np.asfortranarray(np.array([[1, 2, 3, STOP], [4, 5, 6, 0]], dtype=np.uint64))),
        npz(codes=np.array([[1, 2, 3, STOP], [4, 5, 6, 0]])),
        npz(codes=np.array([[1, 2, 3, 0, 0], [4, 5, 6, 0, 0]]), lengths=[3, 4], stopped=[True, False]),
        npz(codes=np.array([[1, 2, 3, -1], [4, 5, 6, 0]]), lengths=[3, 4], stopped=[1, 0]),
        npz(codes=np.array([[START, 1, 2, 3, STOP], [START, 4, 5, 6, 0]]), lengths=[3, 4]),
        npz(codes=np.array([[1, 2, 3, STOP, STOP], [4, 5, 6, 0, STOP]]), stopped=[True, False], other=[[1.5]]),
        lines({"codes": [1, 2, 3, STOP]}, {"codes": [4, 5, 6, 0]}),
        lines({"codes": [START, 1, 2, 3], "stopped": True}, {"codes": [4, 5, 6, 0, -1], "stopped": None}),
        b'\xef\xbb\xbf\n {"codes": [1, 2, 3], "length": 3, "stopped": true}\r\n\n{"codes":[4,5,6,0],"stopped":false}',
        b"<1><2><3><eosp>\n<4><5><6><0>\n",
        b"<sosp><1><2><3><eosp>\r\n<sosp><4><5><6><0>",
        b"\xef\xbb\xbf <sosp> <1> <2> <3> <eosp> \n<4><5><6><0>\n\n\n",
        b"<1><2><3><8193>\n<8192><4><5><6><0>\n",
    ],
)
def test_every_layout_gives_the_same_candidates(tmp_path: Path, data: bytes) -> None:
    """Start codes, stops, padding of either kind, lengths, byte orders and line ends: the same two candidates."""
    assert read(tmp_path, data) == TWO
    assert all(
        candidate.codes.dtype == np.int64 and candidate.index == row and candidate.source == str(tmp_path / "c.any")
        for row, candidate in enumerate(read_candidates(tmp_path / "c.any", BOOK))
    )


def test_one_dimension_is_one_candidate(tmp_path: Path) -> None:
    """A .npy (T,) and an .npz with codes (T,) hold one candidate."""
    assert read(tmp_path, npy([7, 8, STOP])) == [([7, 8], True)]
    assert read(tmp_path, npz(codes=np.array([7, 8]), lengths=[2])) == [([7, 8], False)]


def test_the_kind_is_told_by_the_content(tmp_path: Path) -> None:
    """A suffix that lies changes nothing."""
    assert read(tmp_path, lines({"codes": [1]}), "c.npy") == [([1], False)]
    assert read(tmp_path, npy([1]), "c.jsonl") == [([1], False)]
    assert read(tmp_path, npz(codes=[[1]]), "c.txt") == [([1], False)]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (npy([1]), "npy"),
        (npz(codes=[1]), "npz"),
        (b'\n {"codes"', "jsonl"),
        (b"<1>", "units"),
        (b"PAR1", "parquet"),
        (b"RIFF\0\0\0\0WAVE", "audio"),
        (b"fLaC", "audio"),
        (pickle.dumps([1]), "pickle"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (b" \n", "empty"),
        (b"1 2 3", "unknown"),
    ],
)
def test_candidate_kind_names_what_a_file_is(tmp_path: Path, data: bytes, kind: str) -> None:
    """The first bytes say which kind, audio included, so that a caller can send it through a codec."""
    path = tmp_path / "file"
    path.write_bytes(data)
    assert candidate_kind(path) == kind


def test_known_fields_are_taken_and_others_pass_through(tmp_path: Path) -> None:
    """index, stopped, seed and logprob reach the candidate; what else a record holds is kept untouched."""
    extra = {"speaker": "a", "nested": {"x": [1.5, None]}, "source": "elsewhere"}
    record = {"schema": 1, "index": 7, "codes": [5, 6], "length": 2, "stopped": True, "seed": 2**63, "logprob": -3}
    path = tmp_path / "c.jsonl"
    path.write_bytes(lines({**record, **extra}, {"codes": [1], "seed": None, "logprob": None, "index": None}))
    first, second = read_candidates(str(path), BOOK)
    assert (first.index, first.seed, first.logprob, first.stopped) == (7, 2**63, -3.0, True)
    assert first.extra == extra and first.record() == {**record, **extra}
    assert (second.index, second.seed, second.logprob, second.extra) == (1, None, None, {})


def test_an_earlier_verdict_is_not_carried_into_the_next(tmp_path: Path) -> None:
    """Records that `clvp generate` ranked can be scored again: their rank and what it was based on are left out."""
    ranked = {"rank": 1, "signals": {"clvp": 1.0}, "ranked_by": ["clvp", "x"], "notes": ["short"], "score": 1.0}
    path = tmp_path / "c.jsonl"
    path.write_bytes(lines({**ranked, "codes": [1, 2]}))
    assert read_candidates(path, BOOK)[0].extra == {"signals": {"clvp": 1.0}, "score": 1.0}


def test_npz_columns_reach_the_candidates(tmp_path: Path) -> None:
    """Seeds, log-probabilities and numbers are read where they are; −1 and NaN mean unknown."""
    data = npz(codes=[[1], [2]], seeds=[5, -1], logprobs=[-1.5, np.nan], index=[3, 4], meta='{"n": 2}')
    path = tmp_path / "c.npz"
    path.write_bytes(data)
    first, second = read_candidates(path, BOOK)
    assert (first.seed, first.logprob, first.index) == (5, -1.5, 3)
    assert (second.seed, second.logprob, second.index) == (None, None, 4)
    assert read_meta(path) == {"n": 2}
    path.write_bytes(npz(codes=[[1]]))
    assert read_meta(path) == {}


@pytest.mark.parametrize("data", [npy([[1, STOP]]), lines({"codes": [1, STOP]}), b"<1><eosp>\n"])
def test_stdin_takes_any_kind_but_npz(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "-" reads stdin, from the stream or from bytes at hand; the source is "-"."""

    class Stdin:
        closed = False
        buffer = io.BytesIO(data)

    monkeypatch.setattr("sys.stdin", Stdin())
    for found in (read_candidates("-", BOOK), read_candidates("-", BOOK, data=data)):
        assert [(c.codes.tolist(), c.stopped, c.source) for c in found] == [([1], True, "-")]


# What is refused

GOOD_NPY = npy([[1, 2, STOP], [3, 4, 5]])
GOOD_NPZ = npz(codes=np.array([[1, 2, STOP], [3, 4, 5]]))
OK = {"codes": [1, 2, 3]}

BAD: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "empty"),
    "blank file": (b" \n\n", "empty"),
    "byte order mark alone": (b"\xef\xbb\xbf", "empty"),
    "plain text": (b"hello there\n", "not a candidate file"),
    "numbers as text": (b"1 2 3\n", "not a candidate file"),
    "binary rubbish": (b"\x00\x01\x02" * 50, "not a candidate file"),
    "audio": (b"RIFF$\0\0\0WAVEfmt ", "audio, not a candidate file"),
    "gzip": (gzip.compress(lines(OK)), "compressed"),
    "pickle": (pickle.dumps([1, 2]), "a pickle: refused"),
    "html": (b"<html><body></body></html>", r"row 0 \(line 1\): not a unit at '<html>"),
    "utf-16": ("<1><2>".encode("utf-16"), "not a candidate file"),
    # .npy
    "npy cut in its header": (GOOD_NPY[:30], "cut short in its header"),
    "npy cut in its codes": (GOOD_NPY[:-3], "cut short: 2×3 needs 48 bytes, 45 are there"),
    "npy with more behind": (GOOD_NPY + GOOD_NPY, "bytes follow the array"),
    "npy float": (npy([[1.0, 2.0]]), "row 0: codes are float64, not integers"),
    "npy nan": (npy([[1.0, 2.0], [3.0, np.nan]]), "row 1: nan at position 1 is not a code"),
    "npy infinite": (npy(np.array([1, np.inf], np.float16)), "row 0: inf at position 1"),
    "npy bool": (npy([[True, False]]), "row 0: codes are true or false"),
    "npy complex": (npy([[1j]]), "row 0: codes are complex128"),
    "npy strings": (npy([["1", "2"]]), "row 0: codes are <U1"),
    "npy objects": (npy(np.array([[1], [2, 3]], dtype=object), allow_pickle=True), "refused: it holds Python objects"),
    "npy structured": (npy(np.zeros(2, dtype=[("a", "i4")])), "is not a plain number"),
    "npy no dimension": (npy(5), "0 dimensions"),
    "npy 3 dimensions": (npy(np.ones((2, 2, 2), int)), "3 dimensions"),
    "npy no rows": (npy(np.zeros((0, 5), int)), "no candidates in it"),
    "npy no codes": (npy(np.zeros((3, 0), int)), "row 0: no codes in it"),
    "npy nothing": (npy(np.zeros(0, int)), "row 0: no codes in it"),
    "npy outside": (
        npy([[1, 2], [3, 9000]]),
        "row 1: code 9000 at position 1 is outside the speech vocabulary, 0 … 8191",
    ),
    "npy negative": (npy([[1, -2]]), "row 0: code -2 at position 1 is outside"),
    "npy outside after the stop": (npy([[1, STOP, 9000]]), "code 9000 at position 2"),
    "npy huge unsigned": (npy(np.array([[1, 2**64 - 1]], np.uint64)), "row 0: code 9223372036854775807 at position 1"),
    "npy start in the middle": (npy([[1, START, 2]]), "row 0: the start code 8192 at position 1"),
    "npy two starts": (npy([[START, START, 2]]), "the start code 8192 at position 1"),
    "npy pad in the middle": (npy([[1, 2, 3], [1, -1, 3]]), "row 1: −1 at position 1 is followed by 3"),
    "npy pad at the left": (npy([[-1, 1, 2]]), "row 0: −1 at position 0 is followed by 1"),
    "npy stop after a pad": (npy([[1, -1, STOP]]), "−1 at position 1 is followed by 8193"),
    "npy stop at once": (npy([[1, 2], [STOP, STOP]]), "row 1: no codes before its end"),
    "npy start and stop": (npy([[START, STOP]]), "row 0: no codes before its end"),
    "npy padding alone": (npy([[-1, -1]]), "row 0: no codes before its end"),
    "npy huge claim": (
        b"\x93NUMPY\x01\x00\x46\x00" + b"{'descr': '|i1', 'fortran_order': False, 'shape': (99999999, 99), }".ljust(70),
        "more than 67,108,864 codes",
    ),
    "npy long": (npy([[1, 2], [3, STOP]]).replace(b"(2, 2)", b"(1, 9999)"), "rows of 9,999 codes, over the 8,192"),
    # .npz
    "npz cut": (GOOD_NPZ[:-30], "not a whole .npz"),
    "npz cut early": (GOOD_NPZ[:60], "not a whole .npz"),
    "npz without codes": (npz(other=[1]), "no array called codes"),
    "npz empty": (npz(), "no array called codes"),
    "npz float": (npz(codes=[[1.0]]), "row 0: codes are float64"),
    "npz objects": (npz(codes=np.array([[1], [2, 3]], dtype=object)), "refused: it holds Python objects"),
    "npz lengths of another shape": (npz(codes=[[1], [2]], lengths=[1]), r"lengths are \(1,\) int64, beside 2 rows"),
    "npz lengths too long": (npz(codes=[[1, 2]], lengths=[3]), "row 0: its length is given as 3, of 2 codes"),
    "npz lengths negative": (npz(codes=[[1, 2]], lengths=[-1]), "row 0: its length is given as -1"),
    "npz lengths too short": (
        npz(codes=[[1, 2], [1, 2]], lengths=[2, 1]),
        "row 1: its length is given as 1, but codes",
    ),
    "npz lengths over a stop": (npz(codes=[[1, STOP, 2]], lengths=[3]), "row 0: its length is given as 3, but 1 codes"),
    "npz length zero": (npz(codes=[[1, 2], [0, 0]], lengths=[2, 0]), "row 1: no codes before its end"),
    "npz stopped as text": (npz(codes=[[1]], stopped=["yes"]), "stopped are"),
    "npz seeds as floats": (npz(codes=[[1]], seeds=[1.5]), "seeds are"),
    "npz long": (npz(codes=np.ones((2, 8195), np.int16), lengths=[3, 4]), "rows of 8,195 codes, over the 8,192"),
    # .jsonl
    "jsonl cut": (lines(OK) + b'{"codes": [1, 2', "line 2 is cut short"),
    "jsonl list": (b"[[1, 2], [3, 4]]\n", "line 1 is not a JSON object but an array"),
    "jsonl printed over lines": (b'{\n  "codes": [1, 2]\n}\n', "line 1 is not JSON"),
    "jsonl no codes": (lines(OK, {"text": "x"}), r'row 1 \(line 2\): no "codes" in it'),
    "jsonl scored": (lines({"rank": 1, "score": 2.5}), r"row 0 \(line 1\): a scored record without codes"),
    "jsonl empty": (lines(OK, {"codes": []}), r"row 1 \(line 2\): no codes before its end"),
    "jsonl stop alone": (lines({"codes": [STOP]}), "row 0.*no codes before its end"),
    "jsonl text": (lines({"codes": "1 2"}), "\"codes\" is not a list but '1 2'"),
    "jsonl null": (lines({"codes": None}), '"codes" is not a list but null'),
    "jsonl float": (b'{"codes": [1, 1.0]}\n', "row 0.*1.0 at position 1 is not a code"),
    "jsonl bool": (lines({"codes": [1, True]}), "true at position 1 is not a code"),
    "jsonl null code": (lines({"codes": [None]}), "null at position 0"),
    "jsonl string code": (lines({"codes": ["7"]}), "'7' at position 0"),
    "jsonl nested": (lines({"codes": [[1, 2], [3]]}), "a list at position 0 is not a code"),
    "jsonl nan": (b'{"codes": [1, NaN]}\n', "line 1 is not JSON: NaN"),
    "jsonl outside": (lines(OK, {}, OK), r"row 1 \(line 2\)"),
    "jsonl outside the vocabulary": (
        b"\n" + lines(OK, {"codes": [8194]}),
        r"row 1 \(line 3\): code 8194 at position 0",
    ),
    "jsonl far outside": (lines({"codes": [10**30]}), "far outside the speech vocabulary"),
    "jsonl pad in the middle": (lines({"codes": [1, -1, 2]}), "−1 at position 1"),
    "jsonl length": (lines({"codes": [1, 2, STOP], "length": 3}), '"length" is 3, but 2 codes are there'),
    "jsonl stopped contradicts": (lines({"codes": [1, STOP], "stopped": False}), '"stopped" is false, but'),
    "jsonl stopped as a number": (lines({"codes": [1], "stopped": 1}), '"stopped" is .1., not true or false'),
    "jsonl index": (lines({"codes": [1], "index": -1}), '"index" is -1, not a whole number'),
    "jsonl seed": (lines({"codes": [1], "seed": "a"}), "\"seed\" is 'a', not a whole number"),
    "jsonl logprob": (lines({"codes": [1], "logprob": [1]}), '"logprob" is a list, not a number'),
    "jsonl endless logprob": (lines({"codes": [1], "logprob": 10**400}), '"logprob" is 1000.*, not a number'),
    "jsonl endless digits": (b'{"codes": [1], "seed": ' + b"9" * 5000 + b"}", "line 1 is not JSON: Exceeds the limit"),
    "jsonl nesting": (b'{"codes": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", "nested deeper"),
    "jsonl long": (lines(OK, {"codes": [START] + [1] * 8193 + [STOP]}), "row 1.*8,193 codes, over the 8,192"),
    "jsonl not utf-8": (b'{"codes": [1], "a": "\xff"}\n', "line 1 is not UTF-8"),
    # units
    "units long": (b"<1>\n" + b"<1>" * 8193, "row 1.*8,193 codes, over the 8,192"),
    "units cut": (b"<1><2>\n<3><4", r"row 1 \(line 2\): not a unit at '<4'"),
    "units with words": (b"<1><2>\n<1> and <2>\n", r"row 1 \(line 2\): not a unit at 'and <2>'"),
    "units empty": (b"<1>\n<sosp><eosp>\n", r"row 1 \(line 2\): no units in it"),
    "units blank line": (b"<1>\n\n<2>\n", r"row 1 \(line 2\): a blank line before other"),
    "units float": (b"<1><2.0>\n", "not a unit at '<2.0>'"),
    "units negative": (b"<1><-1>\n", "not a unit at '<-1>'"),
    "units outside": (b"<1><9999>\n", r"row 0 \(line 1\): code 9999 at position 1 is outside"),
    "units far outside": (b"<1><" + b"9" * 30 + b">\n", "not a unit at"),
    "units outside on the third": (b"<1>\n<2>\n<3><9999>\n", r"row 2 \(line 3\): code 9999 at position 1"),
    "units after the end": (b"<1><eosp><2>\n", "not a unit at '<2>'"),
    "units with a NUL": (b"<1>\0<2>\n", "NUL byte"),
    # parquet
    "parquet cut": (b"PAR1" + b"\0" * 40, "not a whole Parquet file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_with_their_row(tmp_path: Path, case: str) -> None:
    """Each fault is a CandidateError of one line that names the file, and the row where there is one, with a hint."""
    if case.startswith("parquet"):
        pytest.importorskip("pyarrow")
    data, expected = BAD[case]
    path = tmp_path / "bad.file"
    path.write_bytes(data)
    with pytest.raises(CandidateError, match=expected) as caught:
        read_candidates(path, BOOK)
    message = caught.value.message
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < len(str(path)) + 160
    assert caught.value.exit_code == 1


def test_missing_files_and_directories_are_candidate_errors(tmp_path: Path) -> None:
    """No such file, a directory in its place, an .npz on stdin."""
    with pytest.raises(CandidateError, match="no such file"):
        read_candidates(tmp_path / "none.npy", BOOK)
    with pytest.raises(CandidateError, match="is a directory"):
        read_candidates(tmp_path, BOOK)
    with pytest.raises(CandidateError, match=r"stdin: an \.npz cannot be read from stdin"):
        read_candidates("-", BOOK, data=GOOD_NPZ)
    with pytest.raises(CandidateError, match="stdin: row 0: code 9000"):
        read_candidates("-", BOOK, data=npy([9000]))


@pytest.mark.parametrize("name", ["c.npy", "c.npz", "c.jsonl", "c"])
def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path: Path, name: str) -> None:
    """An object array, an .npz of one and a bare pickle, whatever they are called: refused, and nothing runs."""
    marker = tmp_path / "executed"
    hostile = np.array([[Bomb(marker)]], dtype=object)
    contents = [npy(hostile, allow_pickle=True), npz(codes=hostile), pickle.dumps(Bomb(marker))]
    contents += [pickle.dumps(Bomb(marker), protocol=0)]
    for data in contents:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CandidateError):
            read_candidates(tmp_path / name, BOOK)
        assert not marker.exists()
    pickle.loads(contents[2])
    assert marker.exists()  # the bomb was live


def test_a_file_with_too_many_codes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap on codes holds for every kind."""
    monkeypatch.setattr("clvp_cli.io.candidates.MAX_CODES", 5)
    for data in (npy([[1] * 6]), npz(codes=[[1] * 6]), lines(OK, OK), b"<1><2><3>\n<1><2><3>\n"):
        with pytest.raises(CandidateError, match="more than 5 codes"):
            read(tmp_path, data)
    assert len(read(tmp_path, npy([[1] * 5]))) == 1


def test_large_files_are_quick(tmp_path: Path) -> None:
    """10 000 candidates of 500 codes are read in about a second."""
    path = tmp_path / "c.npy"
    codes = np.random.default_rng(0).integers(0, 8192, (10_000, 500), dtype=np.int32)
    codes[:, 400:] = STOP
    np.save(path, codes)
    started = time.perf_counter()
    found = read_candidates(path, BOOK)
    seconds = time.perf_counter() - started
    assert len(found) == 10_000 and found[-1].length == 400 and found[-1].stopped
    assert seconds < 2, f"{seconds:.2f} s"  # 0.2 s on a quiet machine


@pytest.mark.parametrize("data", [GOOD_NPY, GOOD_NPZ, lines({"codes": [17, STOP], "index": 3, "x": {"y": 1}}, OK)])
def test_damaged_bytes_never_escape_as_other_errors(data: bytes) -> None:
    """Files with bytes flipped or cut at random are read, or refused with a CandidateError: nothing else."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        damaged = damaged[: len(data) if rng.random() < 0.7 else rng.integers(0, len(data))]
        try:
            found = read_candidates("-", BOOK, data=bytes(damaged))
        except CandidateError:
            continue
        assert all(len(c.codes) and c.codes.min() >= 0 and c.codes.max() < BOOK.size for c in found)
