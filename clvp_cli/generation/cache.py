"""Keys and values that generation keeps: a prompt's once for all its candidates, each candidate's own beside it.

Tensors only; steps.py attends to them. H heads, P prompt positions, N rows, E extent (the codes of the longest row,
rounded up), d head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import native
from ..model.layers import Attend, MaskedAttend
from ..model.products import VECTOR
from ..native import pages

BLOCK = VECTOR  # positions by which the rows' caches grow
FAR_BLOCK = 4 * BLOCK  # the same on a GPU, where a graph is captured for each extent, and for narrow heads
NARROW = 16  # heads less wide than this: PyTorch's products of so few numbers round by how many there are


@dataclass(frozen=True)
class PromptCache:
    """Of each layer the keys and values (H, P, d) of one prompt, its start code included, dense.

    P is `extent`, its `length` rounded up; zeros behind.
    """

    layers: list[tuple[Tensor, Tensor]]
    length: int
    extent: int

    @cached_property
    def laid(self) -> list[native.Prompt]:
        """The same for our own kernels."""
        return [native.Prompt(keys, values, self.length) for keys, values in self.layers]


class PromptRecorder:
    """Runs a prompt causally and keeps its keys and values in `dtype`."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.layers: list[tuple[Tensor, Tensor]] = []

    def attend(self, layer: int) -> Attend:
        """The way of layer `layer`, called in order."""
        causal = MaskedAttend(causal=True)

        def record(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.layers.append((k[0].to(self.dtype), v[0].to(self.dtype)))
            return causal(q, k, v)

        return record

    def cache(self) -> PromptCache:
        """What was recorded."""
        length = self.layers[0][0].shape[1]
        fill = -length % VECTOR
        layers = [(_filled_up(k, fill), _filled_up(v, fill)) for k, v in self.layers]
        return PromptCache(layers, length, length + fill)


def _filled_up(part: Tensor, fill: int) -> Tensor:
    return F.pad(part.contiguous(), (0, 0, 0, fill))


class RowCache:
    """Keys and values of N rows of at most `longest` positions, in slots that are filled, moved and left.

    layers[l]: (2, N, H, places, width), keys and values, places of `step` positions each: of these the first E / `step`
    are in use, as many whole blocks as the longest row needs: what nothing was written to takes no memory, and growing
    moves nothing. `lengths` (N,) counts the codes of each row.
    """

    def __init__(
        self, layers: int, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device, block: int
    ) -> None:
        rows, heads, longest, width = shape
        self.block, self.extent, self.written, self.step = block, 0, 0, 1
        whole = 2, rows, heads, -(-longest // block) * block, width
        self.layers = [torch.empty(whole, dtype=dtype, device=device) for _ in range(layers)]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self._viewed: tuple[int, int] | None = None
        self._views: list[LayerView] = []

    def make_room(self, rows: int) -> int | None:
        """Room for another position of the first `rows` rows → where all of them will write, if at one place."""
        least, longest = torch.stack(self.lengths[:rows].aminmax()).tolist()
        self.extent = -(-(longest + 1) // self.block) * self.block
        if self.extent > self.written:
            self._clear()
            self.written = self.extent
        return longest if least == longest else None

    def _clear(self) -> None:
        for tensor in self.layers:  # what is masked must be a number
            tensor[:, :, :, self.written : self.extent].zero_()

    def views(self, rows: int) -> list[LayerView]:
        """Each layer's first rows; the same views for as long as rows and extent stay."""
        if self._viewed != (rows, self.extent):
            self._viewed, self._views = (rows, self.extent), [self._view(tensor[:, :rows]) for tensor in self.layers]
        return self._views

    def _view(self, slots: Tensor) -> LayerView:
        keys, values = slots[..., : self.extent, :].flatten(1, 2)
        return LayerView(slots, keys.transpose(1, 2), values)

    @property
    def _used(self) -> slice:
        return slice(self.extent // self.step)

    def move(self, source: int, target: int) -> None:
        """Let row `source` take the slot `target`."""
        for tensor in self.layers:
            tensor[:, target, :, self._used] = tensor[:, source, :, self._used]
        self.lengths[target] = self.lengths[source]

    def reorder(self, rows: Tensor) -> None:
        """Let slot i hold what slot rows[i] held: beams that fork and die."""
        count = len(rows)
        for tensor in self.layers:
            tensor[:, :count, :, self._used] = tensor[:, rows, :, self._used]
        self.lengths[:count] = self.lengths[rows]


class ChunkCache(RowCache):
    """The same for our own kernels, which read ABREAST positions of one row behind those of the row before.

    In large pages where the system has them, which fill up as rows grow. What nothing was written to is not read.
    """

    def __init__(self, layers: int, shape: tuple[int, int, int, int], dtype: torch.dtype, block: int) -> None:
        rows, heads, longest, width = shape
        super().__init__(0, shape, dtype, torch.device("cpu"), block)
        self.step = native.ABREAST
        whole = layers, 2, -(-longest // block) * block // self.step, heads, rows, width * self.step
        self.layers = [layer.permute(0, 3, 2, 1, 4) for layer in pages.apart(whole, dtype).unbind()]

    def _clear(self) -> None:
        pass


class LayerView(NamedTuple):
    """A layer's first n rows: their slots (2, n, H, …, d), and of these keys (n·H, d, E) and values (n·H, E, d)."""

    slots: Tensor
    keys: Tensor
    values: Tensor
