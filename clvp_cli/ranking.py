"""Signals → order: weighted sums, stable ties. Numpy and the standard library only.

A score is a weighted sum of a candidate's own signals, so that it never depends on its neighbours. Knows nothing of
models: re-ranking saved records must not load torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from .errors import UsageError
from .records import Ranked, Scored

Weights = Mapping[str, float]

MAX_WEIGHT = 1e9  # beyond it a sum says nothing of its other terms, and at last is no number
_TERM = re.compile(r"(?:(?P<weight>[0-9]+(?:\.[0-9]+)?)\*)?(?P<name>[a-z][a-z0-9_]*)")


def parse_rank_by(text: str) -> dict[str, float]:
    """ "alignment+0.2*clvp" → {"alignment": 1.0, "clvp": 0.2}; UsageError where it is not such a sum."""
    weights: dict[str, float] = {}
    for term in text.replace(" ", "").split("+"):
        match = _TERM.fullmatch(term)
        if match is None:
            raise UsageError(
                f"rank by {text!r}: {term!r} is not a signal", "write clvp, or a sum such as alignment+0.2*clvp"
            )
        if match["name"] in weights:
            raise UsageError(f"rank by {text!r}: {match['name']} stands there twice", "write each signal once")
        weights[match["name"]] = float(match["weight"] or 1.0)
        if weights[match["name"]] > MAX_WEIGHT:
            raise UsageError(f"rank by {text!r}: a weight is {MAX_WEIGHT:,.0f} at most", "the ratio of weights counts")
    if not any(weights.values()):
        raise UsageError(f"rank by {text!r}: every weight is 0, so nothing is ranked", "leave out what shall not count")
    return weights


def rank(scored: Sequence[Scored], weights: Weights | None = None) -> list[Ranked]:
    """Best first, what is not a number last; ties keep the given order."""
    weights = weights or {"clvp": 1.0}
    entries = [(candidate, combine(candidate, weights)) for candidate in scored]

    ordered = sorted(entries, key=lambda entry: math.inf if math.isnan(entry[1]) else -entry[1])
    return [
        Ranked(candidate, place, score, tuple(weights), tuple(weights.values()))
        for place, (candidate, score) in enumerate(ordered, start=1)
    ]


def combine(scored: Scored, weights: Weights) -> float:
    """The weighted sum of a candidate's signals; UsageError for a signal that it does not have."""
    missing = [name for name in weights if name not in scored.signals]
    if missing:
        known = ", ".join(scored.signals)
        raise UsageError(f"no signal called {missing[0]!r} was computed", f"this model offers {known}")
    return sum(weight * scored.signals[name] for name, weight in weights.items())
