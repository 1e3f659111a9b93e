"""The records that flow through the program: Candidate → Scored → Ranked, and their JSON form.

Owns the field names of the JSONL interface (adding is fine, renaming is not) and its version. Numpy only: reading,
ranking and writing saved records must never load torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 1
MAX_LENGTH = 8192  # codes of one candidate, over six minutes of speech: judging it takes time with its square

Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One sequence of speech codes, whoever made it.

    `codes` (T,) holds neither the start code nor the stop code; `stopped` says whether a stop code followed.
    """

    codes: Codes
    stopped: bool
    index: int = 0  # its number among the candidates of its source: it decides ties and seeds
    source: str = ""  # the file it came from, or "generated"
    seed: int | None = None
    logprob: float | None = None  # sum of log p of codes and stop, the model's own; of beams, as they searched
    extra: Mapping[str, Any] = field(default_factory=dict)  # fields of a foreign record; they pass through

    @property
    def length(self) -> int:
        """Number of codes, the stop code not counted."""
        return len(self.codes)

    def record(self) -> dict[str, Any]:
        """The JSON form: index, codes, length, stopped, seed, logprob, and what came with it."""
        return {
            **self.extra,
            "schema": SCHEMA_VERSION,
            "index": self.index,
            "codes": self.codes.tolist(),
            "length": self.length,
            "stopped": self.stopped,
            "seed": self.seed,
            "logprob": finite(self.logprob),
        }


@dataclass(frozen=True, eq=False)
class Scored:
    """A candidate with what the signals say of it. Higher is better for every signal.

    `signals` maps a signal's name to its value; `cosine` is the CLVP cosine, `signals["clvp"]` the logit.
    """

    candidate: Candidate
    signals: Mapping[str, float]
    cosine: float | None = None
    notes: tuple[str, ...] = ()  # what a person should know of it: "not stopped"


@dataclass(frozen=True, eq=False)
class Ranked:
    """A scored candidate with its place (rank 1 is the best) and the score that the order follows."""

    scored: Scored
    rank: int
    score: float
    ranked_by: tuple[str, ...] = ("clvp",)  # the signals whose sum the score is
    weights: tuple[float, ...] = (1.0,)  # of each of them

    def record(self, *, with_codes: bool = False) -> dict[str, Any]:
        """The JSON form of cli.md's `score`; `generate` adds the codes."""
        candidate = self.scored.candidate
        made = {} if not with_codes else {"codes": candidate.codes.tolist()}
        known = {} if candidate.seed is None else {"seed": candidate.seed}
        likely = {} if candidate.logprob is None else {"logprob": finite(candidate.logprob)}
        record: dict[str, Any] = {
            **candidate.extra,
            "schema": SCHEMA_VERSION,
            "rank": self.rank,
            "index": candidate.index,
            "source": candidate.source,
            "score": finite(self.score),
            "cosine": finite(self.scored.cosine),
            "length": candidate.length,
            "stopped": candidate.stopped,
            **known,
            **likely,
            "signals": {name: finite(value) for name, value in self.scored.signals.items()},
            **made,
        }
        if (self.ranked_by, self.weights) != (("clvp",), (1.0,)):
            record["ranked_by"] = list(self.ranked_by)
        if set(self.weights) != {1.0}:
            record["rank_weights"] = list(self.weights)
        if self.scored.notes:
            record["notes"] = list(self.scored.notes)
        return record


def finite(value: float | None) -> float | None:
    """JSON has no NaN: None stands for what is not finite."""
    return None if value is None or not math.isfinite(value) else float(value)
