"""Numbers with their uncertainty: intervals, paired tests, what picking among n is worth. Plain numpy, all seeded.

Knows nothing of models, clips or what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Z95 = 1.959963984540054  # the normal distribution's 97.5 % point
EXACT = 14  # pairs up to which every assignment of signs is gone through: 2**14 of them


def wilson(successes: float, n: int) -> tuple[float, float]:
    """95 % interval of a share; `successes` of `n`, a fraction where each trial is itself an average.

    Source: Wilson 1927. Unlike the normal interval it is not empty at 0 or n successes.
    """
    if n < 1:
        return 0.0, 1.0
    share, scale = successes / n, Z95 * Z95 / n
    centre = (share + scale / 2) / (1 + scale)
    half = math.sqrt(share * (1 - share) * scale + scale * scale / 4) / (1 + scale)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(
    columns: ArrayLike,
    statistic: Callable[[Floats], Floats] = lambda means: means[..., 0],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of a function of means, rows resampled with replacement.

    Args:
        columns: (n,) or (n, k): one row for each independent unit (a clip, a text), its columns resampled together.
        statistic: means (draws, k) → (draws,); the mean of the first column unless given.
    """
    rows = np.asarray(columns, dtype=np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    values = statistic(_resampled(len(rows), draws, seed) @ rows / len(rows))
    known = values[np.isfinite(values)]  # a ratio is not, where a draw has nothing to divide by
    if not len(known):
        return math.nan, math.nan
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=8)
def _resampled(n: int, draws: int, seed: int) -> Floats:
    """How often each of n rows comes in each draw with replacement: (draws, n)."""
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
    counts.setflags(write=False)
    return counts


def paired_permutation(differences: ArrayLike, *, draws: int = 10000, seed: int = 0) -> float:
    """Two-sided p of "these paired differences are as often above 0 as below", by flipping their signs.

    Exact for up to 14 pairs; otherwise by `draws` random flips, the observed one counted (Phipson & Smyth 2010).
    """
    values = np.asarray(differences, dtype=np.float64)
    observed = abs(values.sum())
    near = observed - 1e-9 * max(1.0, float(np.abs(values).sum()))  # what rounding makes of equal sums is equal
    if len(values) <= EXACT:
        bits = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1
        return float((np.abs((1 - 2 * bits) @ values) >= near).mean())
    signs = np.random.default_rng(seed).integers(0, 2, (draws, len(values))) * 2 - 1
    return float((1 + int((np.abs(signs @ values) >= near).sum())) / (draws + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Each p as it stands among so many tests, by name. Source: Holm 1979."""
    adjusted: dict[str, float] = {}
    worst = 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        worst = max(worst, min(1.0, p * (len(p_values) - place)))
        adjusted[name] = worst
    return adjusted


def expected_pick(values: ArrayLike, scores: ArrayLike, n: int) -> float:
    """The mean value of the best-scored of n candidates drawn from these N, over all ways to draw them.

    The candidate at rank j (from 0) is the best of a draw in C(N − 1 − j, n − 1) of C(N, n) ways. Ties keep their
    order. With scores = −values it is the oracle's choice; with n = 1 the mean.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    ranked = np.asarray(values, dtype=np.float64)[order]
    total = len(ranked)
    ways = np.array([math.comb(total - 1 - j, n - 1) for j in range(total)], dtype=np.float64)
    return float(ways @ ranked / math.comb(total, n))


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions that turn one sequence into the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, mine in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, theirs in enumerate(other, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (mine != theirs))
    return row[-1]
