"""Manifests, caches and draws: what is read, what is refused, and what a resumed run can rely on."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import write_sound

from clvp_cli.errors import InputError, OutputError
from clvp_cli.training.augment import augment, stretch_time, warp_bands
from clvp_cli.training.config import AugmentConfig
from clvp_cli.training.data import ArrayCache, Draw, read_manifest
from clvp_cli.training.features import Features
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
        ('{"text": "hello", "codes": [1, 2.5]}', "not whole numbers"),
        ('{"text": "hello", "codes": [true]}', "not whole numbers"),
        ('{"text": "hello", "codes": {"1": 2}}', "not whole numbers"),
        ('{"text": "hello", "codes": " "}', "neither audio nor codes"),
        ('{"text": "hello", "audio": ["a.wav"]}', "line 1: audio is no file name"),
        ("{", "m.jsonl"),
        ("", "no clips"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    """A short error with file and line, never a traceback later on."""
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / "m.jsonl", ids, 0.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'text\taudio\n"hello\ta.wav\nbye\tb.wav\nyes"\tc.wav\n', "line 4: a quoted field that began lines before"),
        (b"text\taudio\nhello\ta.wav\tann\n", "line 2 has more columns"),
        (b"text\taudio\nhello\n", "line 2 has neither audio nor codes"),
        (b"text\taudio\n\ncaf\xe9\ta.wav\n", "line 3 is not UTF-8"),
        ("text\taudio\n".encode("utf-16"), "line 1 is UTF-16"),
        (b"text\taudio\n" + 200_000 * b"a", "line 2: not readable as TSV: field larger"),
        (b"text\taudio\n", "no clips"),
    ],
)
def test_a_bad_line_of_a_table_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """No clip is swallowed by a stray quote, and none is read from a column too many."""
    (tmp_path / "m.tsv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / "m.tsv", ids, 0.0)


def test_a_table_of_excels_is_read(tmp_path: Path) -> None:
    """A byte order mark, CRLF, and quotes around a field with quotes in it."""
    (tmp_path / "m.tsv").write_bytes(b'\xef\xbb\xbftext\taudio\r\n"say ""hello"""\ta.wav\r\n')
    [clip] = read_manifest(tmp_path / "m.tsv", ids, 0.0)
    assert (clip.text, clip.audio) == ('say "hello"', str(tmp_path / "a.wav"))


@pytest.mark.parametrize("name", ["m.tsv", "m.jsonl"])
def test_a_manifest_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    """Missing, or a directory."""
    with pytest.raises(InputError, match="no such file"):
        read_manifest(tmp_path / name, ids, 0.0)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="is a directory"):
        read_manifest(tmp_path / name, ids, 0.0)


def test_the_held_out_share_is_the_same_from_everywhere(tmp_path: Path) -> None:
    """Which clips are kept back follows from what the manifest says, not from where it lies or is read."""
    kept = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.jsonl").write_text("".join(f'{{"text": "a", "audio": "{i}.wav"}}\n' for i in range(50)))
        for name in (tmp_path / folder / "m.jsonl", Path("m.jsonl")):
            with contextlib.chdir(tmp_path / folder):
                kept.append([clip.held_out for clip in read_manifest(name, ids, 0.3)])
    assert all(one == kept[0] for one in kept)
    assert 0 < sum(kept[0]) < 50


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


def fill_at_once(directory: Path, keys: list[str], ready: Any) -> None:
    """What each of two processes does: open the cache, wait for the other one, fill."""
    cache = ArrayCache(directory, "x", "int32", 2)
    ready.wait(20)

    def make(key: str) -> np.ndarray:
        time.sleep(0.001)
        return np.full((int(key) % 7 + 1, 2), int(key))

    cache.fill(keys, make, lambda n, of: None)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_runs_fill_a_cache_at_once(tmp_path: Path) -> None:
    """Both opened it empty; afterwards it holds the right rows of every key, none computed twice."""
    fork = multiprocessing.get_context("fork")
    ready = fork.Barrier(2)
    wanted = [[str(i) for i in range(60)], [str(i) for i in range(30, 90)]]
    runs = [fork.Process(target=fill_at_once, args=(tmp_path, keys, ready)) for keys in wanted]
    for run in runs:
        run.start()
    for run in runs:
        run.join(20)
        assert run.exitcode == 0
    cache = ArrayCache(tmp_path, "x", "int32", 2)
    for i in range(90):
        assert cache.read(str(i)).tolist() == [[i, i]] * (i % 7 + 1)
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 90


def test_a_cache_makes_anew_what_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Under another stamp a key is computed again, with a notice; without a stamp, its file gone, it stays."""

    def fill(rows: int, stamps: dict[str, str]) -> list[int]:
        cache = ArrayCache(tmp_path, "x", "int32", 1)
        cache.fill(["a", "b"], lambda key: np.full((rows, 1), rows), lambda n, of: None, stamps)
        return [cache.rows(key) for key in ("a", "b")]

    assert fill(3, {"a": "1", "b": "1"}) == [3, 3]
    assert fill(4, {"a": "1"}) == [3, 3]
    assert not caplog.records
    assert fill(2, {"a": "2", "b": "1"}) == [2, 3]
    assert "1 of 2 made again" in caplog.text
    assert ArrayCache(tmp_path, "x", "int32", 1).read("a").tolist() == [[2], [2]]


@pytest.mark.parametrize(
    "damage_of",
    [
        lambda index, data: index.write_bytes(b"{]\n"),
        lambda index, data: index.write_bytes(b"\xff\xfe\n" + index.read_bytes()),
        lambda index, data: index.write_bytes(b"[3]\n"),
        lambda index, data: index.write_bytes(b'{"key": "a", "start": 0, "rows": "2"}\n'),
        lambda index, data: index.write_bytes(b'{"key": "a", "start": 0, "rows": -2}\n'),
        lambda index, data: index.write_bytes(2 * index.read_bytes()),  # as two runs at once once wrote it
        lambda index, data: index.write_bytes(b"[" * 100_000 + b"\n"),
        lambda index, data: data.write_bytes(data.read_bytes()[:-1]),
        lambda index, data: data.unlink(),
    ],
)
def test_a_damaged_cache_is_named(tmp_path: Path, damage_of: Any) -> None:
    """The error says which files to remove; nothing is read from it."""
    ArrayCache(tmp_path, "x", "int32", 2).fill(["a"], lambda key: np.ones((2, 2)), lambda n, of: None)
    damage_of(tmp_path / "x.jsonl", tmp_path / "x.int32")
    with pytest.raises(InputError, match="a damaged cache") as caught:
        ArrayCache(tmp_path, "x", "int32", 2)
    assert f"remove {tmp_path / 'x.int32'} and {tmp_path / 'x.jsonl'}" in (caught.value.hint or "")


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file in its place, and a name that is none."""
    (tmp_path / "file").touch()
    for name in ("file", "file/below", "a\0b"):
        with pytest.raises(OutputError, match="cannot be made") as caught:
            ArrayCache(tmp_path / name, "x", "int32", 1)
        assert "data.cache" in (caught.value.hint or "")


def test_a_replaced_sound_gets_new_mels(tmp_path: Path) -> None:
    """A file of the same name with other content, and one of the same relative name elsewhere, are other clips."""
    rows = []
    for folder, pitches in (("one", [1, 2]), ("two", [1, 2, 3]), ("one", [1])):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_sound(tmp_path / folder / "a.wav", pitches)
        (tmp_path / folder / "m.jsonl").write_text('{"text": "a", "audio": "a.wav"}\n')
        with contextlib.chdir(tmp_path / folder):
            features = Features(tmp_path / "cache", lambda what, n, of: None)
            [clip] = features.make_mels(read_manifest(Path("m.jsonl"), ids, 0.0))
        rows.append(features.mels.rows(clip.audio))
    assert rows[0] < rows[1]
    assert rows[2] < rows[0]
