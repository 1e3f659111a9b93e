"""clvp_cli.training.synthesis: what is said by whom, and a manifest that survives being killed. No speech package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clvp_cli.errors import InputError
from clvp_cli.training.synthesis import corpus, engine, sentences

TEXTS = {"train": ["one two three", "four five six", "seven eight nine"], "heldout": ["never heard before"]}
CONFIG: dict[str, Any] = {"speakers": {"a": {}, "b": {}, "c": {}}, "held_out": ["c"], "unseen_share": 0.3}


def tone(text: str, voice: dict[str, Any], rng: np.random.Generator) -> engine.Speech:
    """A second of a tone between silences: an engine for tests."""
    wave = np.sin(np.arange(16000) * 0.1).astype(np.float32) * 2
    return engine.Speech(np.pad(wave, 8000), 16000)


def make(folder: Path, hours: float) -> list[dict[str, Any]]:
    manifest = corpus.Manifest(folder / "manifest.jsonl", str.upper)
    corpus.speak("toy", tone, CONFIG, TEXTS, manifest, hours=hours, seed=1, rate=22050, until=2e9, log=print)
    manifest.file.close()
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A manifest with a torn last line is mended, nothing is made twice, and the whole equals one run."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "torn").mkdir()
    whole = make(tmp_path / "whole", 30 / 3600)
    make(tmp_path / "torn", 12 / 3600)
    with (tmp_path / "torn" / "manifest.jsonl").open("a") as file:
        file.write('{"audio": "toy/000/0000')
    assert make(tmp_path / "torn", 30 / 3600) == whole
    assert len({row["audio"] for row in whole}) == len(whole) > 20
    assert all(row["phones"] == row["text"].upper() for row in whole)


def test_held_out_voices_read_held_out_sentences_only(tmp_path: Path) -> None:
    """Every row with a held-out voice or sentence is marked, and no other."""
    for row in make(tmp_path, 60 / 3600):
        unseen = row["speaker"] == "toy-c"
        assert (row["split"] == "heldout") == (row["text"] in TEXTS["heldout"])
        assert not unseen or row["split"] == "heldout"


def test_blends_never_mix_held_out_voices_with_others() -> None:
    """A blend is held out as a whole or not at all, and its weights sum to one."""
    people = corpus.speakers("k", {"voices": ["a", "b", "c", "d"], "held_out": ["c", "d"], "blends": 2}, seed=3)
    assert {p.name: p.held_out for p in people if "+" in p.name} == {"k-a+b": False, "k-c+d": True}
    assert all(sum(p.voice["mixture"].values()) == pytest.approx(1) for p in people)


def test_finish_trims_silence_and_bounds_the_peak() -> None:
    """A second of tone in two of silence comes back as little more than a second, not above 0.98."""
    samples = engine.finish(tone("", {}, np.random.default_rng(0)), 22050)
    assert 1.0 <= len(samples) / 22050 <= 1.2
    assert np.abs(samples).max() <= 0.981


def test_silent_engine_is_given_up(tmp_path: Path) -> None:
    """An engine that never speaks ends its step instead of running for ever."""
    said: list[str] = []

    def mute(text: str, voice: dict[str, Any], rng: np.random.Generator) -> engine.Speech:
        raise InputError("no voice")

    manifest = corpus.Manifest(tmp_path / "manifest.jsonl", str.upper)
    corpus.speak("toy", mute, CONFIG, TEXTS, manifest, hours=1, seed=1, rate=22050, until=2e9, log=said.append)
    manifest.file.close()
    assert "given up" in said[-1]


def test_real_speech_is_listed_without_the_judging_sets(tmp_path: Path) -> None:
    """Only train/ sets of manifest.tsv enter, once."""
    (tmp_path / "manifest.tsv").write_text(
        "set\tfile\tspeaker\tseconds\ttext\tlicence\tsource\n"
        "train/an4\ttrain/an4/x.ogg\tx\t1.5\tyes\tfree\tan4\n"
        "dev/kathleen\tdev/kathleen/y.flac\ty\t2.0\tno\tfree\tk\n"
    )
    manifest = corpus.Manifest(tmp_path / "manifest.jsonl", str.upper)
    corpus.list_real(tmp_path, manifest)
    corpus.list_real(tmp_path, manifest)
    manifest.file.close()
    (row,) = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert (row["source"], row["speaker"], row["seconds"]) == ("an4", "an4-x", 1.5)


def test_sentences_are_short_plain_and_whole() -> None:
    """Titles end no sentence, long ones give clauses, digits and capitals in a row are left out."""
    text = 'Mr. Elton was sure of it. "Stay with me," said he. In 1812 they left. The NATO men came. Too short. ' + (
        "It was a very long and most tedious evening for all who were there; nobody could deny it."
    )
    found = list(sentences.split(text))
    assert found == [
        "Mr. Elton was sure of it.",
        "Stay with me, said he.",
        "It was a very long and most tedious evening for all who were there",
        "nobody could deny it.",
    ]


def test_missing_package_is_named() -> None:
    """An engine whose package is absent says which one to install."""
    with pytest.raises(InputError) as caught:
        engine.need("no_such_module_here", "the-package")
    assert "the-package" in str(caught.value.hint)
