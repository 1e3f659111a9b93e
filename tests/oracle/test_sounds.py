"""Log-mels against transformers' ClvpFeatureExtractor and Tortoise's format_conditioning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tortoise.api import format_conditioning
from transformers import ClvpFeatureExtractor

import clvp_cli
from clvp_cli.audio.mel import log_mel, published_mel_norms

from .live import draws

RATE = 22050


def wave(seed: int, length: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise with a tone, loud and soft by turns."""
    rng = np.random.RandomState(seed)
    time = np.arange(length) / RATE
    sound = 0.1 * rng.standard_normal(length) + 0.3 * np.sin(2 * np.pi * rng.randint(80, 4000) * time)
    return np.asarray(sound * (0.5 + 0.5 * np.sin(2 * np.pi * 1.5 * time)), dtype=np.float32)


@draws(3)
@pytest.mark.parametrize("length", [600, 2048, 30001, 132300, 140000])
def test_features(seed: int, length: int) -> None:
    """input_features and attention_mask agree with and without norms, for short, exact and long waveforms."""
    sound = wave(seed, length)
    for norms in (None, published_mel_norms().tolist()):
        expected = ClvpFeatureExtractor(mel_norms=norms)(sound, sampling_rate=RATE, return_tensors="np")
        found = clvp_cli.ClvpFeatureExtractor(mel_norms=norms)(sound, sampling_rate=RATE, return_tensors="np")
        np.testing.assert_allclose(found["input_features"], expected["input_features"], atol=1e-4)
        np.testing.assert_array_equal(found["attention_mask"], expected["attention_mask"])


@draws(2)
def test_feature_batches(seed: int, tmp_path: Path) -> None:
    """Batches and the padding arguments act as in transformers, with settings read from its own file."""
    theirs = ClvpFeatureExtractor(mel_norms=published_mel_norms().tolist(), default_audio_length=2)
    theirs.save_pretrained(tmp_path)
    ours = clvp_cli.ClvpFeatureExtractor.from_pretrained(tmp_path)
    clips = [wave(seed + number, length) for number, length in enumerate((9000, 15000, 50000))]
    for call in ({}, {"padding": "longest", "truncation": False}, {"max_length": 20000}, {"pad_to_multiple_of": 1024}):
        expected = theirs(clips, sampling_rate=RATE, return_tensors="np", **call)
        found = ours(clips, sampling_rate=RATE, return_tensors="np", **call)
        assert set(found) == set(expected)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=f"{name} {call}")


@draws(3)
def test_conditioning_mel(seed: int) -> None:
    """Six seconds, padded with silence, give Tortoise's conditioning mel."""
    sound = wave(seed, 90000)
    expected = format_conditioning(torch.from_numpy(sound)[None], device="cpu")[0].numpy()
    padded = np.pad(sound, (0, 132300 - len(sound)))
    np.testing.assert_allclose(log_mel(padded, mel_norms=published_mel_norms()), expected, atol=2e-4)
