"""What the evaluation reads: the manifest's judging sets, as many clips as asked for, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_data import judging_data

from clvp_cli.bench.material import Material, drawn, read_clips
from clvp_cli.errors import InputError
from clvp_cli.pipeline import Clvp


def test_only_judging_sets_are_read(tmp_path: Path) -> None:
    """Clips of train/ are left out; those of dev/ come in the manifest's order with their text."""
    clips = read_clips(judging_data(tmp_path))
    assert [clip.set for clip in clips] == ["dev/one"] * 3 + ["dev/two"] * 6
    assert (clips[1].text, clips[1].speaker, clips[1].seconds) == ("we call it a bear", "speaker1", 1.5)
    assert all(clip.path.is_file() for clip in clips)


def test_a_limit_draws_from_each_set_by_seed(tmp_path: Path) -> None:
    """At most so many clips of each set, the same for a seed, in their order; 0 is all of them."""
    data = judging_data(tmp_path)
    some = read_clips(data, limit=2, seed=3)
    assert [clip.set for clip in some] == ["dev/one"] * 2 + ["dev/two"] * 2
    assert some == read_clips(data, limit=2, seed=3)
    assert any(read_clips(data, limit=2, seed=seed) != some for seed in range(4, 9))
    assert drawn(some, 0, 1) == drawn(some, 9, 1) == some


@pytest.mark.parametrize(
    ("manifest", "wrong"),
    [
        ("", "no column 'set'"),
        ("set\tfile\tspeaker\tseconds\n", "no column 'text'"),
        ("set\tfile\tspeaker\tseconds\ttext\ntrain/a\tx.wav\tme\t1\thi\n", "no clip for judging"),
        ("set\tfile\tspeaker\tseconds\ttext\ndev/a\tx.wav\tme\t1\thi\n", "line 2: .*x.wav: no such file"),
        ("set\tfile\tspeaker\tseconds\ttext\ndev/a\tx.wav\tme\tlong\thi\n", "line 2: not 5 fields"),
        ("set\tfile\tspeaker\tseconds\ttext\ndev/a\tx.wav\n", "line 2: not 5 fields"),
    ],
)
def test_a_bad_manifest_is_told_by_its_line(manifest: str, wrong: str, tmp_path: Path) -> None:
    """What is missing is named, with the line, before any work."""
    (tmp_path / "manifest.tsv").write_text(manifest)
    with pytest.raises(InputError, match=wrong):
        read_clips(tmp_path)


def test_a_missing_manifest_is_an_input_error(tmp_path: Path) -> None:
    """A directory without a manifest is named."""
    with pytest.raises(InputError, match=r"manifest\.tsv"):
        read_clips(tmp_path)


def test_a_reference_is_another_clip_of_the_speaker(tmp_path: Path, tiny_model: Path) -> None:
    """The voice is never the clip itself while the speaker has others, and stays the same for a seed."""
    clips = read_clips(judging_data(tmp_path))
    material = Material(Clvp.load(tiny_model), clips, seed=1)
    for clip in material.sets["dev/two"]:
        voice = material.reference(clip)
        assert voice != clip and (voice.set, voice.speaker) == (clip.set, clip.speaker)
        assert voice == Material(material.clvp, clips, seed=1).reference(clip)
    alone = material.sets["dev/one"][1]
    assert material.reference(alone) == alone


def test_a_damaged_clip_is_encoded_as_a_file_would_be(tmp_path: Path, tiny_model: Path) -> None:
    """Samples in memory give the codes that the same clip gives as a 16-bit file."""
    material = Material(Clvp.load(tiny_model), read_clips(judging_data(tmp_path)), seed=1)
    clip = material.clips[0]
    sound = material.sound(clip.path)
    made = material.encode(sound.samples, sound.sample_rate)
    assert made.codes.tolist() == material.candidate(clip).codes.tolist()
