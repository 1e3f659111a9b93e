"""What goes wrong with candidates, done on purpose: to sound, and to codes.

Owns the kinds of damage that the evaluation reports. Knows nothing of models, texts or scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = NDArray[Any]

DUE = ("drop", "repeat", "truncate", "other")  # the kinds that the headline figure counts
CODES_A_SECOND = 22050 / 1024
DROPPED, REPEATED, KEPT = 0.5, 0.6, 0.75  # seconds, seconds, share
NOISE_DB = 15.0  # speech over noise
CLIPPED = 0.1  # of the peak, where the waveform is cut off


def drop(row: Row, span: int, rng: np.random.Generator) -> Row:
    """A span somewhere is gone: (T,) → (T − span,)."""
    start = int(rng.integers(0, len(row) - span + 1))
    return np.concatenate([row[:start], row[start + span :]])


def repeat(row: Row, span: int, rng: np.random.Generator) -> Row:
    """A span somewhere comes twice: (T,) → (T + span,)."""
    start = int(rng.integers(0, len(row) - span + 1))
    return np.concatenate([row[: start + span], row[start:]])


def truncate(row: Row) -> Row:
    """The last quarter is gone."""
    return row[: max(1, int(len(row) * KEPT))]


def swap(row: Row, span: int, rng: np.random.Generator) -> Row:
    """Two neighbouring spans change places."""
    start = int(rng.integers(0, len(row) - 2 * span + 1))
    middle, end = start + span, start + 2 * span
    return np.concatenate([row[:start], row[middle:end], row[start:middle], row[end:]])


def add_noise(samples: Row, rng: np.random.Generator) -> Row:
    """White noise, 15 dB below the clip's mean power."""
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) * 10 ** (-NOISE_DB / 20)
    return (samples + rng.normal(0.0, level, len(samples))).astype(samples.dtype)


def clip_peaks(samples: Row) -> Row:
    """Cut off at a tenth of the peak, and as loud as before."""
    limit = CLIPPED * float(np.abs(samples).max())
    return (np.clip(samples, -limit, limit) / CLIPPED).astype(samples.dtype)


def sound_damages(samples: Row, rate: int, rng: np.random.Generator) -> dict[str, Row]:
    """Damaged copies of a clip (n,), by kind; kinds that a clip is too short for are left out."""
    made = {"truncate": truncate(samples), "noise": add_noise(samples, rng), "clipping": clip_peaks(samples)}
    if len(samples) > 2 * DROPPED * rate:
        made["drop"] = drop(samples, round(DROPPED * rate), rng)
    if len(samples) > REPEATED * rate:
        made["repeat"] = repeat(samples, round(REPEATED * rate), rng)
    return made


def code_damages(codes: Row, rng: np.random.Generator) -> dict[str, Row]:
    """Damaged copies of codes (T,), by kind: the same spans, without the codec's help in hearing the joints."""
    dropped, repeated = round(DROPPED * CODES_A_SECOND), round(REPEATED * CODES_A_SECOND)
    made = {"truncate": truncate(codes)}
    if len(codes) > 2 * dropped:
        made["drop"] = drop(codes, dropped, rng)
        made["swap"] = swap(codes, dropped, rng)
    if len(codes) > repeated:
        made["repeat"] = repeat(codes, repeated, rng)
    return made
