"""`clvp generate-candidates`: what a candidate depends on, and what it is written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import TEXT, Cli, read_jsonl, tone

FIELDS = {"index", "codes", "length", "stopped", "seed", "logprob"}
DRAW = ("--max-codes", "12", "--temperature", "1")


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    """A reference clip."""
    import soundfile

    soundfile.write(tmp_path / "voice.wav", tone(), 22050)
    return tmp_path / "voice.wav"


def codes(records: list[dict[str, Any]]) -> list[list[int]]:
    """The codes of records."""
    return [record["codes"] for record in records]


def test_records_have_the_promised_fields(cli: Cli, voice: Path) -> None:
    """Index from 0, codes within the vocabulary, their number, the seed and a finite logprob."""
    result = cli.fine("generate-candidates", "-t", TEXT, "-r", voice, "-n", "3", *DRAW)
    assert [record["index"] for record in result.records] == [0, 1, 2]
    for record in result.records:
        assert set(record) >= FIELDS and record["length"] == len(record["codes"]) <= 12
        assert all(0 <= code < 8192 for code in record["codes"]) and record["logprob"] < 0
        assert isinstance(record["stopped"], bool) and record["seed"] == 20240229
    assert "seed 20240229" in result.err


@pytest.mark.parametrize("more", [["-n", "2"], ["-n", "8"], *(["-n", "4", "--batch-size", b] for b in "1238")])
def test_a_candidate_depends_on_neither_n_nor_the_batch(more: list[str], cli: Cli, voice: Path) -> None:
    """The first of more candidates are the candidates of fewer, however many run at once."""
    job = ("generate-candidates", "-t", TEXT, "-r", voice, "-q", *DRAW)
    whole = codes(cli.fine(*job, "-n", "4").records)
    other = codes(cli.fine(*job, *more).records)
    shared = min(len(whole), len(other))
    assert other[:shared] == whole[:shared]


def test_a_candidate_does_not_depend_on_the_other_texts(cli: Cli, voice: Path) -> None:
    """A text has the same candidates alone and among others."""
    job = ("generate-candidates", "-r", voice, "-n", "2", *DRAW)
    many = cli.fine(*job, "-f", "-", stdin=b"Some other text.\nHello there.\n").records
    assert [record["line"] for record in many] == [1, 1, 2, 2]
    assert codes(many[2:]) == codes(cli.fine(*job, "-t", TEXT).records)


def test_the_seed_decides(cli: Cli, voice: Path) -> None:
    """The same seed gives the same candidates, another one others."""
    job = ("generate-candidates", "-t", TEXT, "-r", voice, "-n", "2", *DRAW)
    first, again, other = (cli.fine(*job, "--seed", seed).records for seed in ("7", "7", "8"))
    assert first == again and codes(first) != codes(other)


def test_greedy_has_one_answer(cli: Cli, voice: Path) -> None:
    """Under --greedy all candidates are the same, whatever the seed."""
    job = ("generate-candidates", "-t", TEXT, "-r", voice, "-n", "2", "--max-codes", "8", "--greedy")
    first, second = codes(cli.fine(*job).records)
    assert first == second == codes(cli.fine(*job, "--seed", "5").records)[0]


def test_lengths_are_kept_within_their_limits(cli: Cli, voice: Path) -> None:
    """--min-codes and --max-codes bound every candidate."""
    records = cli.fine("generate-candidates", "-t", TEXT, "-r", voice, "--min-codes", "5", "--max-codes", "9").records
    assert len(records) == 16 and all(5 <= record["length"] <= 9 for record in records)


@pytest.mark.parametrize("kind", ["npy", "npz", "jsonl", "txt", "parquet"])
def test_every_kind_of_file_holds_the_same_candidates(kind: str, cli: Cli, voice: Path, tmp_path: Path) -> None:
    """What is written is what stdout says, and reads back to the same scores."""
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet is an optional extra")
    job = ("generate-candidates", "-t", TEXT, "-r", voice, "-n", "3", *DRAW)
    said = cli.fine(*job, "-o", f"all.{kind}").out
    piped = cli.fine(*job, "-o", "-").out
    assert said == piped
    expected = cli.fine("score", "-", "-t", TEXT, stdin=piped.encode()).records
    read = cli.fine("score", f"all.{kind}", "-t", TEXT).records
    same = ("rank", "index", "score", "cosine", "length", "stopped", "signals")
    assert [{name: record[name] for name in same} for record in read] == [
        {name: record[name] for name in same} for record in expected
    ]


def test_an_npz_says_what_produced_it(cli: Cli, voice: Path, tmp_path: Path) -> None:
    """codes, lengths and stopped by row, and the text, the seed and the sampling as JSON."""
    from clvp_cli.io.candidates import read_meta

    cli.fine("generate-candidates", "-t", TEXT, "-r", voice, "-n", "3", *DRAW, "-o", "all.npz")
    with np.load(tmp_path / "all.npz", allow_pickle=False) as held:
        assert held["codes"].shape[0] == 3 and held["lengths"].shape == held["stopped"].shape == (3,)
    meta = read_meta(tmp_path / "all.npz")
    assert (meta["text"], meta["seed"], meta["sampling"]["n"]) == (TEXT, 20240229, 3)


def test_a_text_that_fails_is_a_record_in_its_place(cli: Cli, voice: Path, tmp_path: Path) -> None:
    """Among many texts a bad one becomes an error in its place; it counts only under --strict."""
    lines = "Good.\n☃\n\nAlso good.\n".encode()
    job = ("generate-candidates", "-f", "-", "-r", voice, "-n", "1", *DRAW)
    result = cli.fine(*job, stdin=lines)
    assert [(record["line"], "error" in record) for record in result.records] == [(1, False), (2, True), (4, False)]
    strict = cli(*job, "--strict", "-o", "out.jsonl", stdin=lines)
    assert strict.code == 3 and "1 of 3 rows failed" in strict.complaint[0]
    assert read_jsonl(tmp_path / "out.jsonl") == strict.records == result.records
    assert cli(*job, stdin="☃\n☂\n".encode()).code == 1  # nothing at all was made


def test_many_texts_gather_in_one_file(cli: Cli, voice: Path, tmp_path: Path) -> None:
    """A .jsonl of many texts says of each record which line and text it is of, one line or many."""
    for lines in (b"One.\n", b"One.\nTwo.\n"):
        cli.fine("generate-candidates", "-f", "-", "-r", voice, "-n", "2", *DRAW, "-o", "out.jsonl", stdin=lines)
        records = read_jsonl(tmp_path / "out.jsonl")
        assert len(records) == 2 * lines.count(b"\n") and records[-1]["line"] == lines.count(b"\n")
        assert all(record["text"] in ("One.", "Two.") for record in records)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "voice.wav"]


def test_a_model_is_warned_of_what_its_positions_allow(cli: Cli, voice: Path) -> None:
    """More codes than the decoder has positions for end where these do, and that is said."""
    result = cli.fine("generate-candidates", "-t", TEXT, "-r", voice, "-n", "1", "--max-codes", "2000")
    assert "positions" in result.err and result.records[0]["length"] <= 608


def test_a_candidate_that_no_file_can_hold_is_left_out(cli: Cli, voice: Path, tmp_path: Path) -> None:
    """Under -c hf the start code may be drawn: the others are kept, and a warning names it."""
    job = ("generate-candidates", "-t", TEXT, "-r", voice, "-c", "hf", "-n", "200", "--max-codes", "60", "--top-k", "0")
    result = cli.fine(*job, "--seed", "3", "-o", tmp_path / "c.jsonl")
    odd = [record["index"] for record in result.records if 8192 in record["codes"]]
    kept = [record["index"] for record in read_jsonl(tmp_path / "c.jsonl")]
    assert odd and f"left out: {odd[0]}" in result.err
    assert kept == [index for index in range(200) if index not in odd]
