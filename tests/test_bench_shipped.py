"""The weights that are shipped still hear and choose: a few real clips, seconds of work, bounds with room for chance.

The full figures, with intervals, come from `clvp bench mini --data ../shared/data`.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from conftest import shared_data

from clvp_cli.bench.damage import damage
from clvp_cli.bench.damages import sound_damages
from clvp_cli.bench.figures import Figure
from clvp_cli.bench.material import Clip, Material, read_clips
from clvp_cli.bench.retrieval import retrieval
from clvp_cli.locate import ASSETS, EMBEDDED
from clvp_cli.pipeline import Clvp

VOICE = Clip(
    ASSETS / "voice.flac",
    "bundled",
    "reader",
    5.3,
    "unless to be rather cold hearted and rather selfish is to be ill disposed",
)
OTHERS = (
    "the light burned low as the keeper wrote to his sister in the town",
    "she had never seen so many boats upon the river before that day",
    "unless to be rather tall and sometimes unkind is to be well inclined",
    "ill disposed to be rather selfish and cold hearted rather unless",
    "he opened the window and listened for the sound of the carriage",
)
SEED, CLIPS = 7, 6  # of each set
FAST = 4.5  # seconds of a clip at most


@pytest.fixture(scope="module")
def mini() -> Clvp:
    """The embedded model."""
    if not (EMBEDDED["mini"] / "config.json").is_file():
        pytest.skip("the embedded model's weights are not in this checkout")
    return Clvp.load("mini")


@pytest.fixture(scope="module")
def figures(mini: Clvp) -> dict[tuple[str, str], Figure]:
    """Retrieval and damage on twelve short clips, six of each judging set."""
    by_set: dict[str, list[Clip]] = defaultdict(list)
    for clip in read_clips(shared_data()):
        if clip.seconds <= FAST and len(by_set[clip.set]) < CLIPS:
            by_set[clip.set].append(clip)
    clips = [Clip(c.path, "dev", c.speaker, c.seconds, c.text) for some in by_set.values() for c in some]
    material = Material(mini, clips, SEED)
    made = [*retrieval(material), *damage(material)]
    return {(figure.figure, figure.by): figure for figure in made if figure.set == "all"}


def test_the_bundled_voice_is_heard_to_say_its_text(mini: Clvp) -> None:
    """Among six texts, two of them made of like words, the right one scores highest for the bundled clip."""
    candidate = mini.encode(VOICE.path)
    scores = [mini.rank(text, [candidate])[0].score for text in (VOICE.text, *OTHERS)]
    assert int(np.argmax(scores)) == 0


def test_the_bundled_clip_ranks_above_damaged_copies(mini: Clvp) -> None:
    """Intact it scores above its copies with a span dropped or the end cut off."""
    material = Material(mini, [VOICE], SEED)
    sound = material.sound(VOICE.path)
    copies = sound_damages(sound.samples, sound.sample_rate, np.random.default_rng(SEED))
    damaged = [material.encode(copies[kind], sound.sample_rate) for kind in ("drop", "truncate")]
    assert mini.rank(VOICE.text, [*damaged, material.candidate(VOICE)])[0].scored.candidate is material.candidate(VOICE)


def test_the_right_clip_is_found(figures: dict[tuple[str, str], Figure]) -> None:
    """Among twelve clips the ranking finds the right one for nearly every text, the cosine for many."""
    assert figures["retrieval.random", "ranking"].more["of"] == 2 * CLIPS
    assert figures["retrieval.random", "ranking"].value >= 0.9
    assert figures["retrieval.text_random", "ranking"].value >= 0.9
    assert figures["retrieval.random", "clvp"].value >= 0.4


def test_damage_is_heard(figures: dict[tuple[str, str], Figure]) -> None:
    """Intact clips rank above dropped, repeated, truncated copies and another text's clip."""
    assert figures["damage.due", "ranking"].value >= 0.85
    assert figures["damage.sound_other", "ranking"].value >= 0.9


def test_many_codes_are_in_use(mini: Clvp) -> None:
    """The bundled clip alone takes codes of its own nearly everywhere: the codebook has not collapsed."""
    codes = mini.encode(VOICE.path).codes
    assert len(set(codes.tolist())) > 0.5 * len(codes)


def test_decoded_speech_keeps_its_level_over_time(mini: Clvp, tmp_path: Path) -> None:
    """What comes back from the codec is loud where the clip is loud and quiet where it is quiet."""
    candidate = mini.encode(VOICE.path)
    samples, rate = mini.speak(candidate, VOICE.path)
    original = Material(mini, [VOICE], SEED).sound(VOICE.path)
    assert rate == original.sample_rate
    levels = [
        np.log(np.square(row[: len(row) // 1024 * 1024].reshape(-1, 1024)).mean(1) + 1e-8)
        for row in (original.samples, samples)
    ]
    shared = min(map(len, levels))
    assert np.corrcoef(levels[0][:shared], levels[1][:shared])[0, 1] > 0.8


def test_candidates_stop_by_themselves(mini: Clvp) -> None:
    """Of eight candidates of a short sentence most stop within twice the length that it takes to say it."""
    import dataclasses

    settings = dataclasses.replace(mini.settings, sampling=dataclasses.replace(mini.settings.sampling, n=8))
    clvp = Clvp.load("mini", settings)
    text = "The temperature dropped far below zero."  # about 2.5 s: 54 codes
    made = [candidate for _, candidate in clvp.candidates([text], clvp.voice([VOICE.path]))]
    assert sum(candidate.stopped and candidate.length <= 108 for candidate in made) >= 6
