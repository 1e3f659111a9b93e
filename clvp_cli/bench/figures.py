"""A figure of the evaluation: its value, interval, n, and what was asked of it. Numpy-free, model-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..records import SCHEMA_VERSION, finite

COLUMNS = ("figure", "set", "by", "value", "low", "high", "n", "floor", "goal", "met", "p")


class Due(NamedTuple):
    """What a figure must reach, and what is hoped for; `above` says on which side."""

    floor: float | None
    goal: float | None
    above: bool = True


# What is asked of the embedded model, over all sets. Shares and rates are fractions of 1.
DUES: Mapping[tuple[str, str], Due] = {
    ("codec.per_added", "hama"): Due(0.25, 0.10, above=False),
    ("retrieval.random", "ranking"): Due(0.95, 0.99),
    ("retrieval.matched", "ranking"): Due(0.90, 0.97),
    ("retrieval.random", "clvp"): Due(0.50, 0.90),
    ("retrieval.matched", "clvp"): Due(0.35, 0.80),
    ("damage.due", "ranking"): Due(0.88, 0.97),
    ("decoder.stopped", ""): Due(0.90, 0.99),
    ("best-of-n.oracle_over_codec", "oracle"): Due(0.15, None, above=False),
    ("best-of-n.p", "ranking"): Due(0.05, None, above=False),
    ("best-of-n.recovery", "ranking"): Due(None, 0.50),
    ("best-of-n.per", "ranking"): Due(None, 0.30, above=False),
    ("voice.own_above_other", "resemblyzer"): Due(0.80, 0.95),
    ("time.generate", ""): Due(15.0, 5.0, above=False),
}


@dataclass(frozen=True)
class Figure:
    """One number of the evaluation.

    `figure` names it, `set` says of which clips ("all": every set pooled), `by` which signal or evaluator judged.
    `low` and `high` bound the 95 % interval; `n` counts independent units: clips, texts, runs.
    """

    figure: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    set: str = "all"
    by: str = ""
    p: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def due(self) -> Due | None:
        """What is asked of it."""
        return DUES.get((self.figure, self.by)) if self.set == "all" else None

    @property
    def met(self) -> str | None:
        """ "goal", "floor" or "below"; None where nothing is asked."""
        if self.due is None:
            return None
        for name, bound in (("goal", self.due.goal), ("floor", self.due.floor)):
            if bound is not None and (self.value >= bound if self.due.above else self.value <= bound):
                return name
        return "below"

    def record(self) -> dict[str, Any]:
        """The JSON form."""
        made: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "figure": self.figure,
            "set": self.set,
            "by": self.by,
            "value": rounded(self.value),
            "low": rounded(self.low),
            "high": rounded(self.high),
            "n": self.n,
        }
        if self.p is not None:
            made["p"] = rounded(self.p, 5)
        if self.due is not None:
            made |= {"floor": self.due.floor, "goal": self.due.goal, "met": self.met}
        return {**made, **self.more}


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Four places are more than any interval here is wide; None for what is not finite."""
    known = finite(value)
    return None if known is None else round(known, digits)
