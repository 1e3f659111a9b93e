"""What can judge a candidate: one file a signal, one small protocol.

A signal says a number for each candidate of one text, higher is better, and it is a function of that candidate and the
text alone: never of the other candidates, the batch or the padding. Knows nothing of commands or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import Candidate

if TYPE_CHECKING:
    from .speech import Heard, SpeechReader

Values = NDArray[np.float64]
Ids = NDArray[np.int64]


class Signal(Protocol):
    """Judges candidates of one text.

    `name` is its key in a record's `signals`.
    """

    name: str

    def judge(self, ids: Ids, heard: Heard) -> Values:
        """Text ids (S,) without the closing 0, n candidates as the speech encoder heard them → (n,) values."""
        ...


def judge(
    signals: Sequence[Signal], reader: SpeechReader, ids: Ids, candidates: Sequence[Candidate]
) -> dict[str, Values]:
    """What every signal says of every candidate, in the given order, from one pass of the speech encoder.

    The same codes are judged once, so that they tie whatever stands beside each of them.
    """
    distinct: list[Candidate] = []
    numbers: dict[tuple[bytes, bool], int] = {}
    places = []
    for candidate in candidates:
        number = numbers.setdefault((candidate.codes.tobytes(), candidate.stopped), len(distinct))
        places.append(number)
        if number == len(distinct):
            distinct.append(candidate)
    values = {signal.name: np.zeros(len(distinct)) for signal in signals}
    for heard in reader.read(distinct):
        for signal in signals:
            values[signal.name][heard.members] = signal.judge(ids, heard)
    return {name: column[places] for name, column in values.items()}
