"""What may happen to a voice on its way to a microphone, done to plain log-mels (natural log power).

Owns vocal tract, tempo, equalisation and noise. All are cheap on mels and leave the text as it was. Knows nothing of
models. Shapes: M bands, F frames.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .config import AugmentConfig

Floats = NDArray[np.float32]
FLOOR = math.log(1e-5)


def curve(rng: np.random.Generator, bands: int, knots: int, deviation: float) -> Floats:
    """(M, 1): a random smooth curve over the bands."""
    heights = rng.normal(0.0, deviation, knots)
    smooth = np.interp(np.linspace(0, knots - 1, bands), np.arange(knots), heights)
    return smooth.astype(np.float32)[:, None]


def warp_bands(mel: Floats, factor: float) -> Floats:
    """Another vocal tract: band b hears what band b · factor had."""
    bands = len(mel)
    place = np.minimum(np.arange(bands) * factor, bands - 1)
    low = place.astype(np.int64)
    share = (place - low).astype(np.float32)[:, None]
    warped: Floats = mel[low] * (1 - share) + mel[np.minimum(low + 1, bands - 1)] * share
    return warped


def stretch_time(mel: Floats, factor: float) -> Floats:
    """Another tempo: `factor` times as many frames."""
    frames = mel.shape[1]
    place = np.linspace(0, frames - 1, max(1, round(frames * factor)))
    low = place.astype(np.int64)
    share = (place - low).astype(np.float32)
    stretched: Floats = mel[:, low] * (1 - share) + mel[:, np.minimum(low + 1, frames - 1)] * share
    return stretched


def add_noise(mel: Floats, below: float, rng: np.random.Generator) -> Floats:
    """Coloured noise, `below` the clip's mean power (natural log)."""
    level = float(np.logaddexp.reduce(mel, axis=None)) - math.log(mel.size) - below
    rough = np.log(np.maximum(rng.exponential(size=mel.shape), 1e-3)).astype(np.float32)
    noisy: Floats = np.logaddexp(mel, level + curve(rng, len(mel), 5, 1.5) + rough).astype(np.float32)
    return noisy


def augment(
    target: Floats, voice: Floats, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """One draw of everything: plain log-mels of a clip (M, F) and of its voice (M, Fv).

    Returns:
        the clip as it should come out, the clip as the encoder hears it (noise added), and the voice: the same tract
        and room in all three.
    """
    if rng.random() < config.warp:
        factor = 1 + rng.uniform(-config.warp_range, config.warp_range)
        target, voice = warp_bands(target, factor), warp_bands(voice, factor)
    if rng.random() < config.stretch:
        target = stretch_time(target, 1 + rng.uniform(-config.stretch_range, config.stretch_range))
    room = np.float32(rng.normal()) + np.zeros((len(target), 1), np.float32)
    if rng.random() < config.equalise:
        room = room + curve(rng, len(target), 6, config.equalise_deviation)
    target, voice = np.maximum(target + room, FLOOR), np.maximum(voice + room, FLOOR)
    heard = target
    if rng.random() < config.noise:
        heard = add_noise(target, rng.uniform(config.noise_low, config.noise_high), rng)
    return target, heard, voice
