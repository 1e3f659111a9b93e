"""Manifests, caches and draws: what is read, what is refused, and what a resumed run can rely on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clvp_cli.errors import InputError
from clvp_cli.training.augment import augment, stretch_time, warp_bands
from clvp_cli.training.config import AugmentConfig
from clvp_cli.training.data import ArrayCache, Draw, read_manifest
from clvp_cli.training.negatives import KINDS, damage


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_tsv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    """Both give clips; audio is relative to the manifest, a split of any other name than train is held out."""
    (tmp_path / "m.tsv").write_text("audio\ttext\tspeaker\tsplit\na.wav\thello\tann\ttrain\nb.wav\tbye\tann\tdev\n")
    rows = [
        {"audio": "a.wav", "text": "hello", "speaker": "ann", "split": "train"},
        {"audio": "b.wav", "text": "bye", "speaker": "ann", "split": "dev"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    from_tsv = read_manifest(tmp_path / "m.tsv", ids, 0.0)
    assert from_tsv == read_manifest(tmp_path / "m.jsonl", ids, 0.0)
    assert [clip.held_out for clip in from_tsv] == [False, True]
    assert from_tsv[0].audio == str(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"audio": "a.wav"}', "line 1 has no text"),
        ('{"text": "hello"}', "neither audio nor codes"),
        ('{"text": "hello", "codes": [1, "x"]}', "not whole numbers"),
        ('{"text": "hello", "codes": [1, -1]}', "below 0"),
        ("{", "m.jsonl"),
        ("", "no clips"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    """A short error with file and line, never a traceback later on."""
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / "m.jsonl", ids, 0.0)


def test_a_cache_takes_up_what_a_killed_run_left(tmp_path: Path) -> None:
    """Data without its index line is written again; what is there is not computed twice."""
    made: list[str] = []

    def make(key: str) -> np.ndarray:
        made.append(key)
        return np.full((len(key), 2), len(key))

    ArrayCache(tmp_path, "x", "int32", 2).fill(["a", "bb"], make, lambda n, of: None)
    with (tmp_path / "x.int32").open("ab") as file:
        file.write(b"half an entry")
    with (tmp_path / "x.jsonl").open("a") as file:
        file.write('{"key": "ccc", "sta')
    cache = ArrayCache(tmp_path, "x", "int32", 2)
    cache.fill(["a", "bb", "ccc"], make, lambda n, of: None)
    again = ArrayCache(tmp_path, "x", "int32", 2)
    assert made == ["a", "bb", "ccc"]
    for reader in (cache, again):
        assert reader.read("bb").tolist() == [[2, 2], [2, 2]]
        assert reader.read("ccc", 1, 1).tolist() == [[3, 3]]


def test_a_draw_is_a_function_of_seed_and_step() -> None:
    """The same clips whenever it is asked, of like length, within the budget, none twice."""
    lengths = [10 + i % 40 for i in range(200)]
    draw, again = (Draw(range(200), lengths, [1.0] * 200, 300, 64, seed=1) for _ in range(2))
    for step in range(20):
        places, rng = draw(step)
        other, other_rng = again(step)
        assert places == other
        assert rng.random() == other_rng.random()
        assert len(set(places)) == len(places)
        assert max(lengths[i] for i in places) * len(places) <= 300
    assert draw(0)[0] != draw(1)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_damage_changes_a_sequence(kind: str) -> None:
    """Every kind of damage leaves another sequence of the same codes, never an empty one."""
    rng, row, other = np.random.default_rng(0), np.arange(30), np.arange(100, 150)
    for _ in range(50):
        damaged = damage(row, rng, kind, other)
        assert len(damaged) >= 2
        assert damaged.tolist() != row.tolist()
        assert set(damaged.tolist()) <= {*row.tolist(), *other.tolist()}


def test_augmentation_keeps_shapes_and_floor() -> None:
    """Voice, clip and noisy clip keep their bands; the noisy clip keeps the frames of the clean one."""
    mel = np.random.default_rng(0).normal(-4, 2, (80, 50)).astype(np.float32)
    assert warp_bands(mel, 1.1).shape == mel.shape
    assert stretch_time(mel, 1.2).shape == (80, 60)
    for seed in range(20):
        target, heard, voice = augment(mel, mel, AugmentConfig(), np.random.default_rng(seed))
        assert target.shape == heard.shape
        assert voice.shape == mel.shape
        assert min(target.min(), heard.min(), voice.min()) >= np.log(1e-5) - 1e-4
        assert {array.dtype for array in (target, heard, voice)} == {np.dtype(np.float32)}
