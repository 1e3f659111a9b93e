"""Wrong answers that sound nearly right: damaged copies of codes or text, and texts of like length.

Owns the kinds of damage that candidates of a sampling decoder have. Knows nothing of models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("drop", "repeat", "truncate", "swap", "splice")


def damage(
    row: NDArray[Any], rng: np.random.Generator, kind: str | None = None, other: NDArray[Any] | None = None
) -> NDArray[Any]:
    """A damaged copy of a sequence (T,), T ≥ 8.

    drop: a span of an eighth to a third is gone · repeat: a span comes twice · truncate: the last quarter or third is
    gone · swap: two neighbouring spans change places · splice: from some point on it is another sequence's, `other`.
    """
    length = len(row)
    kind = kind or KINDS[int(rng.integers(len(KINDS) - (other is None)))]
    span = int(rng.integers(max(2, length // 8), max(3, length // 3)))
    start = int(rng.integers(0, max(1, length - span)))
    if kind == "drop":
        return np.concatenate([row[:start], row[start + span :]])
    if kind == "repeat":
        return np.concatenate([row[: start + span], row[start:]])
    if kind == "truncate":
        return row[: max(2, int(length * rng.uniform(0.6, 0.8)))].copy()
    if kind == "swap":
        start = int(rng.integers(0, max(1, length - 2 * span)))
        first, second = row[start : start + span], row[start + span : start + 2 * span]
        return np.concatenate([row[:start], second, first, row[start + 2 * span :]])
    if other is None:
        raise ValueError("splice needs another sequence")
    cut = int(length * rng.uniform(0.3, 0.7))
    return np.concatenate([row[:cut], other[int(len(other) * cut / length) :]])
