"""`clvp score`: any format in, the same scores out, in the order asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import TEXT, Cli, read_jsonl, tone

FIELDS = {"rank", "index", "source", "score", "cosine", "length", "stopped", "signals"}
ROWS = [[11, 12, 13, 14], [500, 501, 502], [7000, 3, 7000, 3], [42]]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The same four stopped candidates in every format."""
    width = max(map(len, ROWS)) + 1
    codes = np.full((len(ROWS), width), 8193)
    for place, row in enumerate(ROWS):
        codes[place, : len(row)] = row
    lengths = np.array([len(row) for row in ROWS])
    np.save(tmp_path / "all.npy", codes)
    np.savez(tmp_path / "all.npz", codes=codes, lengths=lengths, stopped=np.ones(len(ROWS), bool))
    lines = [json.dumps({"codes": row, "stopped": True, "note": f"n{place}"}) for place, row in enumerate(ROWS)]
    (tmp_path / "all.jsonl").write_text("\n".join(lines) + "\n")
    units = ["<sosp>" + "".join(f"<{code}>" for code in row) + "<eosp>" for row in ROWS]
    (tmp_path / "all.txt").write_text("\n".join(units) + "\n")
    return {kind: tmp_path / f"all.{kind}" for kind in ("npy", "npz", "jsonl", "txt")}


def test_records_have_the_promised_fields(cli: Cli, files: dict[str, Path]) -> None:
    """Rank from 1, best first, score = the CLVP logit = cosine times one scale."""
    records = cli.fine("score", files["npy"], "-t", TEXT).records
    assert all(set(record) >= FIELDS for record in records)
    assert [record["rank"] for record in records] == [1, 2, 3, 4]
    scores = [record["score"] for record in records]
    assert scores == sorted(scores, reverse=True)
    assert all(record["score"] == record["signals"]["clvp"] and "ranked_by" not in record for record in records)
    assert {round(record["score"] / record["cosine"], 4) for record in records} == {14.2849}  # exp(2.6592)
    assert {record["source"] for record in records} == {str(files["npy"])}


@pytest.mark.parametrize("kind", ["npy", "npz", "jsonl", "txt"])
@pytest.mark.parametrize("piped", [False, True])
def test_the_format_changes_no_score(kind: str, piped: bool, cli: Cli, files: dict[str, Path]) -> None:
    """A candidate has the same score from every format, named or from stdin."""
    if piped and kind == "npz":
        pytest.skip("an .npz needs a name: it is read from its end")
    expected = {r["index"]: r["score"] for r in cli.fine("score", files["npy"], "-t", TEXT).records}
    source, stdin = ("-", files[kind].read_bytes()) if piped else (str(files[kind]), b"")
    records = cli.fine("score", source, "-t", TEXT, stdin=stdin).records
    assert {record["index"]: record["score"] for record in records} == expected
    assert all(record["stopped"] for record in records)


def test_texts_that_failed_before_pass_through(cli: Cli, tmp_path: Path) -> None:
    """A record with an error in place of codes costs the others nothing, comes last as it is, and counts as failed."""
    bad = {"line": 2, "text": "♪", "error": "nothing is left of the text"}
    good = [{"line": line, "text": TEXT, "codes": row, "index": 0} for line, row in ((1, ROWS[0]), (3, ROWS[1]))]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (good[0], bad, good[1])))
    records = cli.fine("score", "some.jsonl").records
    assert [record["line"] for record in records] == [1, 3, 2] and records[-1] == bad
    assert cli("score", "some.jsonl", "--strict").code == 3


def test_a_field_called_error_is_no_failure(cli: Cli) -> None:
    """What came with a candidate passes through; a row that was scored has not failed."""
    done = cli.fine("score", "-", "-t", TEXT, "--strict", stdin=b'{"codes": [1, 2, 3], "error": null}\n')
    assert done.records[0]["error"] is None and done.records[0]["rank"] == 1


@pytest.mark.parametrize("batch_size", ["0", "1", "3"])
def test_equal_candidates_tie_at_every_batch_size(batch_size: str, cli: Cli) -> None:
    """The same codes have the same score to the bit, and keep the order that they were given in."""
    rows = [{"codes": ROWS[0] if place % 2 else [7, place, 9], "index": place} for place in range(12)]
    given = "".join(json.dumps(row) + "\n" for row in rows).encode()
    records = cli.fine("score", "-", "-t", TEXT, "--batch-size", batch_size, stdin=given).records
    same = [record for record in records if record["index"] % 2]
    assert len({record["score"] for record in same}) == 1
    assert [record["index"] for record in same] == [1, 3, 5, 7, 9, 11]


def test_weights_are_told(cli: Cli, files: dict[str, Path]) -> None:
    """A score that is no plain logit says so."""
    plain = cli.fine("score", files["npy"], "-t", TEXT, "--rank-by", "clvp").records[0]
    twice = cli.fine("score", files["npy"], "-t", TEXT, "--rank-by", "2*clvp").records[0]
    assert "ranked_by" not in plain and "rank_weights" not in plain
    assert (twice["ranked_by"], twice["rank_weights"]) == (["clvp"], [2.0])
    assert twice["score"] == pytest.approx(2 * plain["score"])


def test_a_failed_text_tells_of_each_candidate(cli: Cli) -> None:
    """One record out for each record in, with what it brought along, where a text cannot be judged."""
    rows = [{"codes": [1, 2], "text": said, "id": name} for said, name in (("☃", "a"), (TEXT, "b"), ("☃", "c"))]
    records = cli.fine("score", "-", stdin="".join(json.dumps(row) + "\n" for row in rows).encode()).records
    assert {record["id"]: "error" in record for record in records} == {"a": True, "b": False, "c": True}


def test_a_score_depends_on_its_candidate_alone(cli: Cli, files: dict[str, Path], tmp_path: Path) -> None:
    """Alone, among others, or at another batch size: a score moves by less than 1e-4."""
    among = {r["index"]: r["score"] for r in cli.fine("score", files["npy"], "-t", TEXT).records}
    for place, row in enumerate(ROWS):
        np.save(tmp_path / "one.npy", np.array([*row, 8193]))
        assert cli.fine("score", "one.npy", "-t", TEXT).records[0]["score"] == pytest.approx(among[place], abs=1e-4)
    for batch in ("1", "2", "8"):
        records = cli.fine("score", files["npy"], files["txt"], "-t", TEXT, "--batch-size", batch).records
        assert all(record["score"] == pytest.approx(among[record["index"]], abs=1e-4) for record in records)


def test_several_files_are_ranked_together(cli: Cli, files: dict[str, Path]) -> None:
    """Every record names its source, and -k keeps the best of all."""
    records = cli.fine("score", files["npy"], files["jsonl"], "-t", TEXT).records
    assert len(records) == 8 and {record["source"] for record in records} == {str(files["npy"]), str(files["jsonl"])}
    assert cli.fine("score", files["npy"], files["jsonl"], "-t", TEXT, "-k", "3").records == records[:3]


def test_order_input_keeps_the_given_order_and_the_ranks(cli: Cli, files: dict[str, Path]) -> None:
    """--order input shows the same records as they came."""
    ranked = cli.fine("score", files["npy"], "-t", TEXT).records
    given = cli.fine("score", files["npy"], "-t", TEXT, "--order", "input").records
    assert [record["index"] for record in given] == [0, 1, 2, 3]
    assert sorted(given, key=lambda record: int(record["rank"])) == ranked


def test_foreign_fields_pass_through(cli: Cli, files: dict[str, Path]) -> None:
    """What a .jsonl record says besides is said of its score too."""
    records = cli.fine("score", files["jsonl"], "-t", TEXT).records
    assert {record["index"]: record["note"] for record in records} == {place: f"n{place}" for place in range(4)}


def test_padding_is_a_choice_of_the_profile(cli: Cli, files: dict[str, Path]) -> None:
    """own, batch and a length judge alike what has that length, and otherwise what each means."""
    judged = {
        pad: {r["index"]: r["score"] for r in cli.fine("score", files["npy"], "-t", TEXT, "--pad", pad).records}
        for pad in ("own", "batch", "5", "40")
    }
    assert judged["batch"] == judged["5"]  # the longest is four codes and its stop
    assert judged["batch"][0] == pytest.approx(judged["own"][0], abs=1e-5)
    assert judged["own"][3] != pytest.approx(judged["batch"][3], abs=1e-4)
    assert judged["40"][0] != pytest.approx(judged["own"][0], abs=1e-4)


def test_a_record_may_name_its_own_text(cli: Cli) -> None:
    """Without a text, candidates are ranked among those of their own line."""
    lines = [
        {"line": line, "text": text, "index": index, "codes": [line, index + 1]}
        for line, text in ((1, "One."), (2, "Two.")) for index in (0, 1)
    ]  # fmt: skip
    stdin = "".join(json.dumps(line) + "\n" for line in lines).encode()
    records = cli.fine("score", "-", stdin=stdin).records
    assert [(record["line"], record["rank"]) for record in records] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert records[0]["text"] == "One."


def test_a_line_whose_text_fails_is_told_inline(cli: Cli) -> None:
    """Among many texts a bad one is an error record; under --strict it counts."""
    stdin = b'{"text": "One.", "codes": [1]}\n{"text": "\xe2\x98\x83", "codes": [1]}\n'
    records = cli.fine("score", "-", stdin=stdin).records
    assert ["error" in record for record in records] == [False, True]
    assert cli("score", "-", "--strict", stdin=stdin).code == 3


def test_a_job_of_which_everything_failed_is_passed_on(cli: Cli, tmp_path: Path) -> None:
    """Its records come out as they went in, the exit code says that all of them failed; decode has nothing to do."""
    failed = [{"line": 1, "text": "☃", "error": "the text is empty"}, {"line": 2, "text": "☃", "error": "again"}]
    stdin = "".join(json.dumps(record) + "\n" for record in failed).encode()
    for more in ((), ("-t", TEXT), ("-k", "2")):
        result = cli("score", "-", *more, stdin=stdin)
        assert (result.code, result.records) == (1, failed) and "2 of 2 rows failed" in result.complaint[0]
    assert cli("score", "-", "--strict", stdin=stdin).code == 3
    assert "tells of a failure" in cli("decode", "-", "-o", "x.wav", stdin=stdin).complaint[0]


def test_a_text_beside_those_of_the_records_is_told(cli: Cli) -> None:
    """Where -t is not what the records say was said, that is a warning; where it is, or they say nothing, it is not."""
    stdin = b'{"text": "One.", "codes": [1]}\n{"codes": [2]}\n'
    assert "1 candidates name another text" in cli.fine("score", "-", "-t", "Two.", stdin=stdin).err
    assert cli.fine("score", "-", "-t", "One.", stdin=stdin).err == ""


def test_scored_candidates_can_be_scored_again(cli: Cli, tmp_path: Path) -> None:
    """The records of generate are candidates too."""
    import soundfile

    soundfile.write(tmp_path / "voice.wav", tone(), 22050)
    made = cli.fine("generate", "-t", TEXT, "-r", "voice.wav", "-n", "3", "-k", "3", "--max-codes", "5")
    again = cli.fine("score", "-", "-t", TEXT, stdin=made.out.encode()).records
    assert [(r["index"], r["score"]) for r in again] == [(r["index"], r["score"]) for r in made.records]


def test_audio_is_a_candidate_where_the_model_has_a_codec(cli: Cli, files: dict[str, Path], tmp_path: Path) -> None:
    """A clip is scored as the codes that encode gives."""
    import soundfile

    soundfile.write(tmp_path / "said.wav", tone(), 22050)
    cli.fine("encode", "said.wav", "-o", "said.npz")
    heard, read = (cli.fine("score", name, "-t", TEXT).records[0] for name in ("said.wav", "said.npz"))
    assert heard["score"] == pytest.approx(read["score"], abs=1e-6) and heard["source"] == "said.wav"
    assert len(cli.fine("score", "said.wav", files["npy"], "-t", TEXT).records) == 5


def test_the_ranking_may_be_chosen(cli: Cli, files: dict[str, Path]) -> None:
    """--rank-by weighs signals, and the record says by which it was ranked where that is not CLVP alone."""
    records = cli.fine("score", files["npy"], "-t", TEXT, "--rank-by", "2*clvp").records
    assert all(record["score"] == pytest.approx(2 * record["signals"]["clvp"]) for record in records)


def test_scores_go_to_a_file_too(cli: Cli, files: dict[str, Path], tmp_path: Path) -> None:
    """-o FILE.jsonl holds the same records as stdout."""
    result = cli.fine("score", files["npy"], "-t", TEXT, "-o", "scores.jsonl")
    assert read_jsonl(tmp_path / "scores.jsonl") == result.records
