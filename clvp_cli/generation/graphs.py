"""Work that is the same every time, captured once as a CUDA graph and replayed.

A step over few rows is hundreds of short kernels, and a GPU runs them faster than they can be asked for. What is
captured reads and writes tensors that stay where they are, asks the host nothing, and has a shape that returns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

import torch

log = logging.getLogger("clvp")

Work = Callable[[], None]


class Replays:
    """One piece of work at several numbers of rows: replayed on CUDA, elsewhere just done."""

    def __init__(self, device: torch.device) -> None:
        self.capture: Callable[[Work], Work] | None = captured if device.type == "cuda" else None
        self.bound: Hashable = None
        self.replays: dict[int, Work | None] = {}

    def run(self, rows: int, work: Work, bound: Hashable = None) -> None:
        """Do the work on so many rows.

        The first time it is just done, which also loads its kernels, as a capture may not; the second time captured.
        Replays are forgotten when `bound` changes, which tells the tensors that the work reads from others like them.
        """
        if self.capture is None:
            return work()
        if bound != self.bound:
            self.bound = bound
            self.replays.clear()
        if rows not in self.replays:
            self.replays[rows] = None
            return work()
        replay = self.replays[rows]
        if replay is None:
            try:
                replay = self.replays[rows] = self.capture(work)
            except RuntimeError as error:
                log.warning("no CUDA graph could be captured, so steps are slower: %s", error)
                self.capture = None
                return work()
        return replay()


def captured(work: Work) -> Work:
    """The work as a CUDA graph; capturing does not do it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
