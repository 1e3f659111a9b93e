"""Does an intact clip rank above its damaged copy? Damage is done to the sound, which is then encoded, and to codes.

Owns which copies are compared and how they are counted. Knows nothing of how damage is done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from ..errors import AudioError
from ..ranking import combine
from ..records import Candidate
from .damages import DUE, code_damages, sound_damages
from .figures import Figure
from .material import Clip, Material
from .statistics import bootstrap, wilson

Copies = dict[tuple[str, str], Candidate]  # (where the damage was done, its kind) → the damaged copy


def damaged_copies(material: Material, clip: Clip) -> Copies:
    """Every damaged copy of a clip, as candidates for its text."""
    rng = material.rng("damage", clip.path.name)
    sound = material.sound(clip.path)
    codes = material.candidate(clip)
    made: Copies = {}
    for kind, samples in sound_damages(sound.samples, sound.sample_rate, rng).items():
        try:
            made["sound", kind] = material.encode(samples, sound.sample_rate)
        except AudioError:  # what is left of a clip may be silence
            continue
    for kind, row in code_damages(codes.codes, rng).items():
        made["codes", kind] = dataclasses.replace(codes, codes=row)
    others = [c for c in material.sets[clip.set] if c.text.lower() != clip.text.lower()]
    if others:
        made["sound", "other"] = material.candidate(others[int(rng.integers(len(others)))])
    return made


def damage(material: Material) -> Iterator[Figure]:
    """Figures for each kind, and over the kinds that are due, for each set and over all; a tie is a miss."""
    weights = material.clvp.core.rank_weights
    wins: dict[tuple[str, str, str], dict[str, list[float]]] = {}  # (set, where.kind, by) → clip → wins
    for clip in material.clips:
        copies = damaged_copies(material, clip)
        scored = material.clvp.score(clip.text, [material.candidate(clip), *copies.values()])
        values = [{"ranking": combine(one, weights), **one.signals} for one in scored]
        for (where, kind), one in zip(copies, values[1:], strict=True):
            for by in one:
                won = float(values[0][by] > one[by])
                names = [f"damage.{where}_{kind}"] + (["damage.due"] if where == "sound" and kind in DUE else [])
                for name in names:
                    for part in (clip.set, "all"):
                        wins.setdefault((part, name, by), {}).setdefault(str(clip.path), []).append(won)
    for (part, name, by), of_clips in sorted(wins.items()):
        yield _figure(material.seed, part, name, by, list(of_clips.values()))


def _figure(seed: int, part: str, name: str, by: str, of_clips: list[list[float]]) -> Figure:
    """A share of pairs; pairs of one clip are not independent, so clips are what is resampled."""
    sums = np.array([[sum(won), len(won)] for won in of_clips])
    share, n = float(sums[:, 0].sum() / sums[:, 1].sum()), len(of_clips)
    pairs = int(sums[:, 1].sum())
    if pairs == n or share in (0.0, 1.0):
        low, high = wilson(share * n, n)
    else:
        low, high = bootstrap(sums, lambda means: means[..., 0] / means[..., 1], seed=seed)
    return Figure(name, share, n, low, high, part, by, more={"pairs": pairs})
