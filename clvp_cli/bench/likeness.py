"""Whose voice is it? The output's likeness to its reference against its likeness to other speakers' references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .best_of_n import Pool
from .evaluators import Vector
from .figures import Figure
from .material import Material
from .statistics import bootstrap, wilson


def likeness(material: Material, pools: Sequence[Pool]) -> Iterator[Figure]:
    """The share of (output, other speaker) pairs whose output is nearer its own reference; outputs are resampled."""
    known: dict[Path, Vector] = {}
    for pool in pools:
        if pool.voice.path not in known:
            sound = material.sound(pool.voice.path)
            known[pool.voice.path] = material.speakers.vector(sound.samples, sound.sample_rate)
    others = {(pool.voice.set, pool.voice.speaker): pool.voice for pool in pools}  # one clip a speaker
    if len(others) < 2:
        return
    above, own, foreign = [], [], []
    for pool in pools:
        samples, rate = material.clvp.speak(pool.candidates[pool.best()], pool.voice.path)
        output = material.speakers.vector(samples, rate)
        speaker = (pool.voice.set, pool.voice.speaker)
        cosines = [float(output @ known[clip.path]) for key, clip in others.items() if key != speaker]
        own.append(float(output @ known[pool.voice.path]))
        foreign.append(float(np.mean(cosines)))
        above.append(float(np.mean([own[-1] > cosine for cosine in cosines])))
    share, n = float(np.mean(above)), len(above)
    low, high = bootstrap(above, seed=material.seed) if 0 < share < 1 else wilson(share * n, n)
    more = {"speakers": len(others), "pairs": n * (len(others) - 1)}
    yield Figure("voice.own_above_other", share, n, low, high, by="resemblyzer", more=more)
    for name, values in (("own", own), ("other", foreign)):
        low, high = bootstrap(values, seed=material.seed)
        yield Figure(f"voice.cosine_{name}", float(np.mean(values)), n, low, high, by="resemblyzer")
