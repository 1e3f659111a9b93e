"""Damage does what its name says, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from clvp_cli.bench.damages import add_noise, clip_peaks, code_damages, drop, repeat, sound_damages, swap, truncate

ROW = np.arange(100)


def rng() -> np.random.Generator:
    """The same stream each time."""
    return np.random.default_rng(7)


def test_spans_are_dropped_repeated_swapped_and_cut_off() -> None:
    """Each kind takes away, adds or moves one span, and leaves the order of the rest."""
    assert len(drop(ROW, 11, rng())) == 89 and (np.diff(drop(ROW, 11, rng())) > 0).all()
    twice = repeat(ROW, 13, rng())
    assert len(twice) == 113 and (np.bincount(twice) == 2).sum() == 13
    swapped = swap(ROW, 11, rng())
    assert sorted(swapped) == ROW.tolist() and (np.diff(swapped) != 1).sum() == 3
    assert truncate(ROW).tolist() == list(range(75))


def test_noise_is_15_db_below_the_speech() -> None:
    """The power of what is added is 15 dB below the clip's."""
    samples = np.sin(np.arange(20000) / 7).astype(np.float32)
    added = add_noise(samples, rng()) - samples
    assert abs(10 * np.log10((samples**2).mean() / (added**2).mean()) - 15) < 0.2


def test_clipping_keeps_the_peak() -> None:
    """What is above a tenth of the peak is flat, at the old peak."""
    samples = np.sin(np.arange(1000) / 7).astype(np.float32)
    made = clip_peaks(samples)
    assert np.abs(made).max() == pytest.approx(np.abs(samples).max(), rel=1e-6) and (np.abs(made) > 0.99).mean() > 0.9


def test_kinds_that_a_clip_is_too_short_for_are_left_out() -> None:
    """A little more than a second of sound has them all; a fifth of a second only those that need no span."""
    whole = sound_damages(np.ones(22051, np.float32), 22050, rng())
    assert {kind: len(row) for kind, row in whole.items()} == {
        "truncate": 16538, "noise": 22051, "clipping": 22051, "drop": 11026, "repeat": 35281,
    }  # fmt: skip
    assert set(sound_damages(np.ones(4410, np.float32), 22050, rng())) == {"truncate", "noise", "clipping"}
    assert {kind: len(row) for kind, row in code_damages(ROW, rng()).items()} == {
        "truncate": 75, "drop": 89, "swap": 100, "repeat": 113,
    }  # fmt: skip
    assert set(code_damages(ROW[:5], rng())) == {"truncate"}
