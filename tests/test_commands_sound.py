"""`clvp extract-mels`, `voice`, `encode` and `decode`: sound in and out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Cli, execute, tone

from clvp_cli.commands.codec import timbre

FIELDS = {"audio", "sample_rate", "seconds", "frames", "truncated"}


@pytest.fixture(autouse=True)
def sounds(tmp_path: Path) -> None:
    """A short clip, a long one at another rate, and one that cannot be read."""
    import soundfile

    soundfile.write(tmp_path / "short.wav", tone(1.0), 22050)
    soundfile.write(tmp_path / "long.flac", tone(7.5, 16000), 16000)
    (tmp_path / "bad.wav").write_bytes(b"no sound")


def test_a_mel_is_80_by_517_frames_of_6_seconds(cli: Cli, tmp_path: Path) -> None:
    """By default a clip is padded or cut to 6 s, and the record says whether it was cut."""
    short = cli.fine("extract-mels", "short.wav", "-o", "short.npy").records[0]
    assert set(short) >= FIELDS
    assert (short["sample_rate"], short["seconds"], short["frames"], short["truncated"]) == (22050, 1.0, 517, False)
    mel = np.load(tmp_path / "short.npy", allow_pickle=False)
    assert mel.shape == (80, 517) and mel.dtype == np.float32 and np.isfinite(mel).all()
    long = cli.fine("extract-mels", "long.flac").records[0]
    assert (long["sample_rate"], long["frames"], long["truncated"]) == (16000, 517, True)
    assert long["seconds"] == pytest.approx(7.5, abs=1e-3)


def test_full_and_seconds_choose_the_length(cli: Cli) -> None:
    """--full neither pads nor cuts; --seconds takes another window."""
    assert cli.fine("extract-mels", "short.wav", "--full").records[0]["frames"] == 87
    long = cli.fine("extract-mels", "long.flac", "--full").records[0]
    assert (long["frames"], long["truncated"]) == (646, False)
    assert cli.fine("extract-mels", "short.wav", "--seconds", "2").records[0]["frames"] == 173


def test_several_files_are_entries_of_an_npz(cli: Cli, tmp_path: Path) -> None:
    """Entries are called as their files; names that would collide are kept whole; bad files are told inline."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "short.wav").write_bytes((tmp_path / "short.wav").read_bytes())
    records = cli.fine("extract-mels", "short.wav", "bad.wav", "long.flac", "-o", "mels.npz").records
    assert ["error" in record for record in records] == [False, True, False]
    with np.load(tmp_path / "mels.npz", allow_pickle=False) as held:
        assert sorted(held.files) == ["long", "short"] and held["long"].shape == (80, 517)
    assert cli("extract-mels", "short.wav", "bad.wav", "--strict").code == 3
    cli.fine("extract-mels", "short.wav", "sub/short.wav", "-o", "same.npz")
    with np.load(tmp_path / "same.npz", allow_pickle=False) as held:
        assert len(held.files) == 2
    (tmp_path / "short.wav.wav").write_bytes((tmp_path / "short.wav").read_bytes())
    cli.fine("extract-mels", "short.wav", "sub/short.wav", "short.wav.wav", "-o", "same.npz")
    with np.load(tmp_path / "same.npz", allow_pickle=False) as held:
        assert len(held.files) == 3


def test_sound_is_read_from_stdin(cli: Cli, tmp_path: Path) -> None:
    """- is stdin, for mels and for encoding."""
    data = (tmp_path / "short.wav").read_bytes()
    assert cli.fine("extract-mels", "-", stdin=data).records[0]["frames"] == 517
    piped = cli.fine("encode", "-", stdin=data).records[0]["codes"]
    assert piped == cli.fine("encode", "short.wav").records[0]["codes"]


def test_a_voice_holds_a_vector_for_each_window(cli: Cli, tmp_path: Path) -> None:
    """All windows of all clips, and what they were made of."""
    record = cli.fine("voice", "short.wav", "long.flac", "-o", "voice.npz").records[0]
    assert (record["vectors"], record["width"]) == (3, 64)  # 1 s; 6 s and the rest of 1.5 s
    with np.load(tmp_path / "voice.npz", allow_pickle=False) as held:
        assert held["vectors"].shape == (3, 64) and held["vectors"].dtype == np.float32
    again = cli.fine("voice", "voice.npz", "short.wav", "-o", "more.npz").records[0]
    assert again["vectors"] == 4


def test_a_voice_of_half_precision_serves(cli: Cli, tmp_path: Path) -> None:
    """Vectors of any type of float are a voice."""
    cli.fine("voice", "short.wav", "-o", "voice.npz")
    vectors = np.load(tmp_path / "voice.npz", allow_pickle=False)["vectors"]
    for kind in (np.float16, np.float64):
        np.savez(tmp_path / "other.npz", vectors=vectors.astype(kind))
        assert cli.fine("voice", "other.npz", "-o", "again.npz").records[0]["vectors"] == len(vectors)


def test_encode_makes_a_code_of_four_frames(cli: Cli, tmp_path: Path) -> None:
    """A second of sound is 22 codes; files become candidates in their order, bad ones are told."""
    records = cli.fine("encode", "short.wav", "bad.wav", "long.flac", "-o", "codes.npz").records
    assert [record.get("length") for record in records] == [22, None, 162]
    assert records[0]["audio"] == "short.wav" and "error" in records[1]
    with np.load(tmp_path / "codes.npz", allow_pickle=False) as held:
        assert held["lengths"].tolist() == [22, 162]


def test_decode_writes_the_first_or_all(cli: Cli, tmp_path: Path) -> None:
    """Without {index} the first candidate is written, with it every one; the sound lasts as the codes say."""
    import soundfile

    cli.fine("encode", "short.wav", "long.flac", "-o", "codes.npz")
    first = cli.fine("decode", "codes.npz", "-r", "short.wav", "-o", "one.wav").records
    assert len(first) == 1 and first[0]["wav"] == "one.wav"
    records = cli.fine("decode", "codes.npz", "-o", "said-{index}.wav").records
    assert [record["wav"] for record in records] == ["said-0.wav", "said-1.wav"]
    for record in records:
        samples, rate = soundfile.read(tmp_path / record["wav"])
        assert rate == 22050 and len(samples) / rate == pytest.approx(record["seconds"], abs=1e-3)
        assert record["seconds"] == pytest.approx(record["length"] * 1024 / 22050, abs=0.05)
        assert np.isfinite(samples).all() and np.abs(samples).max() > 0


def test_decode_reads_any_format(cli: Cli, tmp_path: Path) -> None:
    """Codes in lines of units, from stdin, become the same sound."""
    (tmp_path / "a.txt").write_text("<1><2><3>\n")
    cli.fine("decode", "a.txt", "-o", "a.wav")
    cli.fine("decode", "-", "-o", "b.wav", stdin=b'{"codes": [1, 2, 3]}\n')
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_decode_writes_no_file_twice(cli: Cli, tmp_path: Path) -> None:
    """Candidates of several texts need {line} in the name; one that names no line is said to."""
    lines = [f'{{"line": {line}, "index": 3, "codes": [5, 6, 7, 8]}}' for line in (1, 2)]
    (tmp_path / "best.jsonl").write_text("\n".join([*lines, '{"line": 4, "error": "nothing to say"}']) + "\n")
    twice = cli("decode", "best.jsonl", "-o", "x-{index}.wav")
    assert twice.code == 2 and "{line}" in twice.err and not list(tmp_path.glob("x-*.wav"))
    named = cli.fine("decode", "best.jsonl", "-o", "x-{line}.wav").records
    assert [record["wav"] for record in named] == ["x-1.wav", "x-2.wav"]
    (tmp_path / "plain.jsonl").write_text('{"codes": [5, 6, 7, 8]}\n')
    assert cli("decode", "plain.jsonl", "-o", "x-{line}.wav").code == 2
    (tmp_path / "true.jsonl").write_text('{"codes": [5, 6, 7, 8], "line": true}\n')
    assert cli("decode", "true.jsonl", "-o", "x-{line}.wav").code == 2


def test_encode_keeps_what_it_could(cli: Cli, tmp_path: Path) -> None:
    """A file that is no sound costs the others nothing, with --strict either."""
    assert cli("encode", "short.wav", "bad.wav", "-o", "kept.npz", "--strict").code == 3
    assert len(np.load(tmp_path / "kept.npz", allow_pickle=False)["codes"]) == 1


def test_a_saved_voice_has_no_sound_to_speak_in(cli: Cli, tmp_path: Path) -> None:
    """decode says so, and takes a clip that stands beside it."""
    cli.fine("voice", "short.wav", "-o", "voice.npz")
    (tmp_path / "voice.npz").rename(tmp_path / "Voice.NPZ")
    (tmp_path / "plain.jsonl").write_text('{"codes": [5, 6, 7, 8]}\n')
    told = cli.fine("decode", "plain.jsonl", "-r", "Voice.NPZ", "-o", "x.wav")
    assert "keeps no sound" in told.err
    both = cli.fine("decode", "plain.jsonl", "-r", "Voice.NPZ", "-r", "short.wav", "-o", "y.wav")
    assert "keeps no sound" not in both.err
    assert timbre(["Voice.NPZ", "short.wav", "long.flac"]) == "short.wav"


def test_sound_is_a_candidate_from_stdin_and_under_any_name(cli: Cli, tmp_path: Path) -> None:
    """What a file is is told by its first bytes."""
    named = cli.fine("score", "short.wav", "-t", "Hello there.").records[0]
    (tmp_path / "nameless").write_bytes((tmp_path / "short.wav").read_bytes())
    piped = cli.fine("score", "-", "-t", "Hello there.", stdin=(tmp_path / "short.wav").read_bytes()).records[0]
    bare = cli.fine("score", "nameless", "-t", "Hello there.").records[0]
    assert named["score"] == piped["score"] == bare["score"]
    assert (piped["source"], bare["source"]) == ("-", "nameless")


def test_a_voice_that_is_not_there_is_named(cli: Cli) -> None:
    """decode looks for its reference, whatever it is used for."""
    gone = cli("decode", "-", "-r", "gone.npz", "-o", "x.wav", stdin=b'{"codes": [5, 6, 7, 8]}\n')
    assert gone.code == 1 and "gone.npz: no such file" in gone.err


def test_a_candidate_without_codes_is_told_beside_the_others(cli: Cli, tmp_path: Path) -> None:
    """Of several candidates, one that has no sound is an error in its record; the others are written."""
    (tmp_path / "c.jsonl").write_text('{"codes": [], "length": 0, "stopped": true}\n{"codes": [1, 2]}\n')
    records = cli.fine("decode", "c.jsonl", "-o", "c-{index}.wav").records
    assert [("error" in record, record["index"]) for record in records] == [(True, 0), (False, 1)]
    assert (tmp_path / "c-1.wav").exists() and not (tmp_path / "c-0.wav").exists()


def test_a_voice_from_a_pipe_is_heard_and_spoken_in(cli: Cli, tmp_path: Path, tiny_model: Path) -> None:
    """Where a clip gives codec and decoder their voice, it is read once: stdin and pipes cannot be read again."""
    (tmp_path / "c.jsonl").write_text('{"codes": [1, 2]}\n{"codes": [3, 4]}\n')
    (tmp_path / "lines.txt").write_text("One.\nTwo.\n")
    draw = ("-n", "1", "--max-codes", "4")
    for name, line in {
        "said": ("generate", "-t", "Hello.", *draw, "--wav", "said.wav"),
        "line-2": ("generate", "-f", "lines.txt", *draw, "--wav", "line-{line}.wav"),
        "code-1": ("decode", "c.jsonl", "-o", "code-{index}.wav"),
    }.items():
        cli.fine(*line, "-r", "short.wav")
        wanted = (tmp_path / f"{name}.wav").read_bytes()
        (tmp_path / f"{name}.wav").unlink()
        piped = execute(
            *line, "-r", "-", cwd=tmp_path, stdin=(tmp_path / "short.wav").read_bytes(), CLVP_MODEL=str(tiny_model)
        )
        assert piped.code == 0 and (tmp_path / f"{name}.wav").read_bytes() == wanted, piped.err
