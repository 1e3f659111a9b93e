"""`clvp generate`: generate-candidates, score and keep the best in one go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import TEXT, Cli, read_jsonl, tone

DRAW = ("--max-codes", "12", "-n", "4")


@pytest.fixture(autouse=True)
def voice(tmp_path: Path) -> None:
    """Two reference clips."""
    import soundfile

    soundfile.write(tmp_path / "voice.wav", tone(), 22050)
    soundfile.write(tmp_path / "other.wav", tone(pitch=90), 22050)


def test_generate_is_generating_and_scoring(cli: Cli) -> None:
    """The records are those of generate-candidates and score, with the codes."""
    made = cli.fine("generate-candidates", "-t", TEXT, "-r", "voice.wav", *DRAW)
    scored = cli.fine("score", "-", "-t", TEXT, stdin=made.out.encode()).records
    best = cli.fine("generate", "-t", TEXT, "-r", "voice.wav", *DRAW, "-k", "4").records
    codes = {record["index"]: record["codes"] for record in made.records}
    assert [(r["rank"], r["index"], r["score"]) for r in best] == [(r["rank"], r["index"], r["score"]) for r in scored]
    assert all(record["codes"] == codes[record["index"]] for record in best)
    assert set(best[0]) >= set(scored[0]) | {"codes"}
    assert cli.fine("generate", "-t", TEXT, "-r", "voice.wav", *DRAW).records == best[:1]  # -k 1 is the default


def test_everything_that_is_asked_for_is_written(cli: Cli, tmp_path: Path) -> None:
    """The best, all candidates, the winner's latents and its sound; each fits the records."""
    import soundfile

    outputs = ("-o", "best.npz", "--save-candidates", "all.npy", "--latents", "l.npz", "--wav", "best.wav")
    best = cli.fine("generate", "-t", TEXT, "-r", "voice.wav", *DRAW, "-k", "2", *outputs).records
    with np.load(tmp_path / "best.npz", allow_pickle=False) as held:
        assert held["lengths"].tolist() == [record["length"] for record in best]
        assert held["index"].tolist() == [record["index"] for record in best]
    assert np.load(tmp_path / "all.npy", allow_pickle=False).shape[0] == 4
    with np.load(tmp_path / "l.npz", allow_pickle=False) as held:
        assert held["codes"].tolist() == best[0]["codes"]
        assert held["latents"].ndim == 2 and held["latents"].shape[1] == 64 and held["latents"].dtype == np.float32
        assert best[0]["length"] <= len(held["latents"]) <= best[0]["length"] + 1
        assert np.isfinite(held["latents"]).all()
    samples, rate = soundfile.read(tmp_path / "best.wav")
    assert rate == 22050 and len(samples) / rate == pytest.approx(best[0]["length"] * 1024 / 22050, abs=0.05)


def test_a_file_of_texts_makes_files_by_line(cli: Cli, tmp_path: Path) -> None:
    """{line} in a name is the text's line; the records gather in one .jsonl, bad texts in their place."""
    (tmp_path / "lines.txt").write_text("One.\n\n☃\nFour.\n")
    outputs = ("-o", "best.jsonl", "--save-candidates", "all-{line}.npz", "--wav", "{line}.wav")
    result = cli.fine("generate", "-f", "lines.txt", "-r", "voice.wav", *DRAW, *outputs)
    records = read_jsonl(tmp_path / "best.jsonl")
    assert records == result.records
    assert [(record["line"], "error" in record) for record in records] == [(1, False), (3, True), (4, False)]
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"all-1.npz", "all-4.npz", "1.wav", "4.wav"} and not made & {"all-3.npz", "3.wav"}


def test_a_saved_voice_stands_for_its_clips(cli: Cli) -> None:
    """`clvp voice` gives what -r hears, and several references are averaged over all their windows."""
    cli.fine("voice", "voice.wav", "other.wav", "-o", "both.npz")
    cli.fine("voice", "other.wav", "-o", "second.npz")
    job = ("generate", "-t", TEXT, *DRAW, "-k", "4")
    clips = cli.fine(*job, "-r", "voice.wav", "-r", "other.wav").records
    assert cli.fine(*job, "-r", "both.npz").records == clips
    assert cli.fine(*job, "-r", "voice.wav", "-r", "second.npz").records == clips
    assert cli.fine(*job, "-r", "voice.wav").records != clips


def test_a_profile_may_take_the_first_clip_alone(cli: Cli) -> None:
    """Under -c hf the first reference is the voice, and that others were given is said."""
    job = ("generate", "-t", TEXT, *DRAW, "-c", "hf", "--max-codes", "6")
    both = cli.fine(*job, "-r", "voice.wav", "-r", "other.wav")
    assert "first of 2" in both.err
    assert both.records == cli.fine(*job, "-r", "voice.wav").records


@pytest.mark.parametrize("profile", ["hf", "tortoise", "ultra_fast", "default"])
def test_every_profile_runs(profile: str, cli: Cli) -> None:
    """Each shipped profile makes ranked records."""
    records = cli.fine("generate", "-t", TEXT, "-r", "voice.wav", "-c", profile, *DRAW, "-k", "2").records
    assert [record["rank"] for record in records] == [1, 2]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate stops at once, as some do under a profile that lets them."""
    from clvp_cli.pipeline import Clvp
    from clvp_cli.records import Candidate

    def candidates(self: Clvp, texts: list[str], *_: object, **__: object) -> Iterator[tuple[int, Candidate]]:
        yield from ((place, Candidate(np.array([], np.int64), True, 0)) for place in range(len(texts)))

    monkeypatch.setattr(Clvp, "candidates", candidates)


def test_a_winner_without_codes_has_no_sound_and_is_kept(cli: Cli, silent: None, tmp_path: Path) -> None:
    """-o is written though --wav cannot be, and what was written can be scored; decode says the same."""
    job = ("generate", "-t", TEXT, "-r", "voice.wav", "-n", "1")
    result = cli(*job, "-o", "best.npz", "--wav", "best.wav")
    assert result.code == 1 and "no codes, so no sound" in result.complaint[0]
    (again,) = cli.fine("score", "best.npz", "-t", TEXT).records
    assert (again["length"], again["stopped"]) == (0, True)
    assert "no sound" in cli("decode", "best.npz", "-o", "best.wav").complaint[0]
    assert not (tmp_path / "best.wav").exists()
    assert cli.fine(*job, "-o", "best.jsonl").records[0]["codes"] == []
    assert cli.fine("score", "best.jsonl", "-t", TEXT).records[0]["score"] == again["score"]


def test_a_winner_without_sound_does_not_end_a_job(cli: Cli, silent: None, tmp_path: Path) -> None:
    """Of many texts, one whose winner cannot be made audible has an error in its record."""
    (tmp_path / "lines.txt").write_text("One.\nTwo.\n")
    result = cli("generate", "-f", "lines.txt", "-r", "voice.wav", "-n", "1", "-o", "b.jsonl", "--wav", "{line}.wav")
    assert result.code == 1 and ["no sound" in record["error"] for record in result.records] == [True, True]


def test_beams_give_a_winner(cli: Cli) -> None:
    """Beam search stands in for sampling."""
    records = cli.fine("generate", "-t", TEXT, "-r", "voice.wav", "--beams", "3", "-n", "2", "--max-codes", "6").records
    assert len(records) == 1 and records[0]["logprob"] < 0


def test_records_are_json_without_nan(cli: Cli) -> None:
    """Every record is strict JSON and names its schema's version."""
    result = cli.fine("generate", "-t", TEXT, "-r", "voice.wav", *DRAW, "-k", "4")
    assert len(result.records) == 4 and all(record["schema"] == 1 for record in result.records)  # .records is strict


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("-o", "same.npz", "--latents", "./same.npz"), "two outputs"),
        (("-o", "same.npz", "--save-candidates", "same.npz"), "two outputs"),
        (("--wav", "w-{line}.wav"), "{line}"),
        (("--wav", "w-{index:03d}.wav"), "{index"),
    ],
)
def test_names_that_lose_an_output_are_refused(names: tuple[str, ...], words: str, cli: Cli, tmp_path: Path) -> None:
    """Before any work: two outputs of one name, and a name that waits for a number there is not."""
    refused = cli("generate", "-t", TEXT, "-r", "voice.wav", *DRAW, *names)
    assert refused.code == 2 and words in refused.err
    assert not list(tmp_path.glob("*.npz")) and not list(tmp_path.glob("w-*"))
