"""What can judge a candidate: one file a signal, one small protocol.

A signal says a number for each candidate of one text, higher is better, and it is a function of that candidate and the
text alone: never of the other candidates, the batch or the padding. Knows nothing of commands or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import Candidate


class Signal(Protocol):
    """Judges candidates of one text.

    `name` is its key in a record's `signals`; `family` names what it learned from, for two of one family err alike.
    """

    name: str
    family: str

    def judge(self, ids: NDArray[np.int64], candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        """Text ids (S,) without the closing 0, N candidates → (N,) values, higher is better."""
        ...
