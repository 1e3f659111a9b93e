"""What the codec leaves of speech: phoneme error rates before and after, and how much of the codebook is used.

Owns which voice a clip is decoded with and what is counted. Knows nothing of the recogniser's inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..records import Candidate
from .evaluators import Opinion, is_there
from .figures import Figure
from .material import Clip, Material
from .statistics import bootstrap

Floats = NDArray[np.float64]


def codebook_use(codes: Sequence[Candidate], size: int) -> dict[str, float]:
    """`used`: codes that occur, `share` of all of them, `perplexity`: codes in even use that would be as uncertain."""
    counts = np.bincount(np.concatenate([c.codes for c in codes]), minlength=size)
    shares = counts[counts > 0] / counts.sum()
    used = float((counts > 0).sum())
    return {"used": used, "share": used / size, "perplexity": float(np.exp(-(shares * np.log(shares)).sum()))}


def codebook(material: Material) -> Iterator[Figure]:
    """Codebook use over all clips; no evaluator is needed."""
    codes = [material.candidate(clip) for clip in material.clips]
    count = sum(c.length for c in codes)
    for name, value in codebook_use(codes, material.clvp.core.codec.config.num_codes).items():
        yield Figure(f"codec.codebook_{name}", value, len(codes), more={"codes": count})


def decoded_rates(material: Material, clip: Clip, voice: Clip) -> float:
    """Phoneme error rate of a clip that went through the codec, decoded with a voice."""
    samples, rate = material.clvp.speak(material.candidate(clip), voice.path)
    return material.error_rate(samples, rate, clip.text)


def codec(material: Material) -> Iterator[Figure]:
    """Error rates of original and decoded clips; the voice is another clip of the speaker ("own": the clip itself)."""
    rows: dict[str, list[list[float]]] = {}
    opinion = Opinion() if is_there("distillmos") else None
    heard: list[list[float]] = []
    for clip in material.clips:
        sound = material.sound(clip.path)
        voice = material.reference(clip, "codec")
        samples, rate = material.clvp.speak(material.candidate(clip), voice.path)
        row = [
            material.error_rate(sound.samples, sound.sample_rate, clip.text),
            material.error_rate(samples, rate, clip.text),
            decoded_rates(material, clip, clip),
        ]
        rows.setdefault(clip.set, []).append(row)
        if opinion is not None:
            heard.append([opinion.score(sound.samples, sound.sample_rate), opinion.score(samples, rate)])
    everything = [row for of_set in rows.values() for row in of_set]
    for name, of_set in [*rows.items(), ("all", everything)]:
        yield from _rates(np.asarray(of_set), name, material.seed)
    for place, what in enumerate(("original", "decoded") if heard else ()):
        column = np.asarray(heard)[:, place]
        yield Figure(
            f"codec.mos_{what}", float(column.mean()), len(column), *bootstrap(column, seed=material.seed),
            by="distillmos",
        )  # fmt: skip


def _rates(rows: Floats, name: str, seed: int) -> Iterator[Figure]:
    columns = {
        "per_original": rows[:, 0],
        "per_decoded": rows[:, 1],
        "per_decoded_own": rows[:, 2],
        "per_added": rows[:, 1] - rows[:, 0],
        "per_added_own": rows[:, 2] - rows[:, 0],
    }
    for what, column in columns.items():
        low, high = bootstrap(column, seed=seed)
        yield Figure(f"codec.{what}", float(column.mean()), len(column), low, high, name, "hama")
