"""What the codec leaves of speech: phoneme error rates before and after, and how much of the codebook is used.

Owns which voice a clip is decoded with and what is counted. Knows nothing of the recogniser's inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..records import Candidate
from .evaluators import Opinion
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


def decoded_rate(material: Material, clip: Clip, voice: Clip) -> float:
    """Phoneme error rate of a clip that went through the codec, decoded with a voice."""
    samples, rate = material.clvp.speak(material.candidate(clip), voice.path)
    return material.error_rate(samples, rate, clip.text)


def codec(material: Material) -> Iterator[Figure]:
    """Error rates of original and decoded clips, decoded with another clip of the speaker as the voice."""
    rows: dict[str, list[list[float]]] = {}
    for clip in material.clips:
        sound = material.sound(clip.path)
        before = material.error_rate(sound.samples, sound.sample_rate, clip.text)
        after = decoded_rate(material, clip, material.reference(clip, "codec"))
        rows.setdefault(clip.set, []).append([before, after])
    everything = [row for of_set in rows.values() for row in of_set]
    for name, of_set in [*rows.items(), ("all", everything)]:
        before_after = np.asarray(of_set)
        columns = {
            "per_original": before_after[:, 0],
            "per_decoded": before_after[:, 1],
            "per_added": before_after[:, 1] - before_after[:, 0],
        }
        for what, column in columns.items():
            yield _mean(f"codec.{what}", column, material.seed, name, "hama")


def opinion(material: Material) -> Iterator[Figure]:
    """Predicted opinion scores of original and decoded clips."""
    judge = Opinion()
    rows = []
    for clip in material.clips:
        sound = material.sound(clip.path)
        samples, rate = material.clvp.speak(material.candidate(clip), material.reference(clip, "codec").path)
        rows.append([judge.score(sound.samples, sound.sample_rate), judge.score(samples, rate)])
    for what, column in zip(("original", "decoded"), np.asarray(rows).T, strict=True):
        yield _mean(f"opinion.mos_{what}", column, material.seed, "all", "distillmos")


def _mean(figure: str, values: Floats, seed: int, part: str, by: str) -> Figure:
    low, high = bootstrap(values, seed=seed)
    return Figure(figure, float(values.mean()), len(values), low, high, part, by)
