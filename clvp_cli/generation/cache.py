"""Keys and values that generation keeps: a prompt's once for all its candidates, each candidate's own beside it.

Tensors only. L layers, H heads, P prompt positions, N rows, T codes, E extent (T rounded up), d head width. Attention
of a step looks at both parts and joins them in one softmax, so that a prompt is never copied N times.

A row's result has the same bits whatever rows are beside it: extents grow by whole BLOCKs that are masked (a masked
key adds an exact zero), prompts are filled up to whole vectors likewise (the kernels' tails round otherwise), and
products have shapes whose kernels do not look at the number of rows (see model/products).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model.layers import Attend, MaskedAttend

VECTOR = 32  # numbers of 16 bits that a processor holds at once
BLOCK = VECTOR  # positions by which the rows' caches grow
FAR_BLOCK = 4 * BLOCK  # the same on a GPU, where a graph is captured for each extent


@dataclass(frozen=True)
class PromptCache:
    """keys, values: (L, H, P, d) of one prompt, its start code included; zeros behind its own `length`."""

    keys: Tensor
    values: Tensor
    length: int

    @property
    def extent(self) -> int:
        """P, `length` rounded up."""
        return self.keys.shape[2]


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
        keys, values = (torch.stack(parts) for parts in zip(*self.layers, strict=True))
        fill = -keys.shape[2] % VECTOR
        return PromptCache(F.pad(keys, (0, 0, 0, fill)), F.pad(values, (0, 0, 0, fill)), keys.shape[2])


class RowCache:
    """Keys and values of N rows of at most `longest` positions, in slots that are filled, moved and left.

    keys[l], values[l]: (N, H, `longest` rounded up, d), of which the first E are in use, as many whole blocks as the
    longest row needs: what nothing was written to takes no memory, and growing moves nothing. `lengths` (N,) counts the
    codes of each row.
    """

    def __init__(
        self, layers: int, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device, block: int
    ) -> None:
        rows, heads, longest, width = shape
        self.block, self.extent, self.written = block, 0, 0
        whole = rows, heads, -(-longest // block) * block, width
        self.keys, self.values = (
            [torch.empty(whole, dtype=dtype, device=device) for _ in range(layers)] for _ in range(2)
        )
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)

    def make_room(self, rows: int) -> int | None:
        """Room for another position of the first `rows` rows → where all of them will write, if at one place."""
        least, longest = torch.stack(self.lengths[:rows].aminmax()).tolist()
        self.extent = -(-(longest + 1) // self.block) * self.block
        if self.extent > self.written:
            for tensor in (*self.keys, *self.values):  # what is masked must be a number
                tensor[:, :, self.written : self.extent].zero_()
            self.written = self.extent
        return longest if least == longest else None

    def layer(self, number: int, rows: int) -> tuple[Tensor, Tensor]:
        """Keys and values (rows, H, E, d) of a layer's first rows."""
        return self.keys[number][:rows, :, : self.extent], self.values[number][:rows, :, : self.extent]

    def move(self, source: int, target: int) -> None:
        """Let row `source` take the slot `target`."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, : self.extent] = tensor[source, :, : self.extent]
        self.lengths[target] = self.lengths[source]

    def reorder(self, rows: Tensor) -> None:
        """Let slot i hold what slot rows[i] held: beams that fork and die."""
        count = len(rows)
        for tensor in (*self.keys, *self.values):
            tensor[:count, :, : self.extent] = tensor[rows, :, : self.extent]
        self.lengths[:count] = self.lengths[rows]


@dataclass(frozen=True)
class Group:
    """A prompt and the rows (n,) that continue it.

    `alone` says that the rows are all there are, in order; `fill` how many rows of zeros the kernels want beside them.
    """

    prompt: PromptCache
    members: Tensor
    alone: bool
    fill: int


def grouped(prompts: Sequence[PromptCache], owners: Tensor, least: int) -> list[Group]:
    """Rows by prompt: owners (N,) says which of `prompts` each row continues."""
    found = [(prompt, torch.nonzero(owners == number).flatten()) for number, prompt in enumerate(prompts)]
    return [
        Group(prompt, members, len(members) == len(owners), max(0, least - len(members)))
        for prompt, members in found
        if len(members)
    ]


class StepAttend:
    """One step of `rows` live rows: writes the new key and value, then attends to the prompt and to the row.

    `place` is what `make_room` told; None where it is not to count on.
    """

    def __init__(self, cache: RowCache, groups: list[Group], rows: int, place: int | None) -> None:
        self.cache, self.groups, self.rows, self.place = cache, groups, rows, place
        self.at = cache.lengths[:rows]
        self.all = torch.arange(rows, device=self.at.device)
        steps = torch.arange(cache.extent, device=self.at.device)
        unwritten = steps > self.at.unsqueeze(1)  # (N, E)
        self.masks = [
            _mask(group.prompt, unwritten if group.alone else unwritten[group.members], cache.keys[0].dtype)
            for group in groups
        ]

    def attend(self, layer: int) -> Attend:
        """The way of layer `layer`."""
        keys, values = self.cache.layer(layer, self.rows)

        def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # each (N, H, 1, d)
            for tensor, new in ((keys, k), (values, v)):
                if self.place is not None:
                    tensor[:, :, self.place] = new[:, :, 0]
                else:
                    tensor[self.all, :, self.at] = new[:, :, 0].to(tensor.dtype)
            asked = q[:, :, 0].to(keys.dtype)  # (N, H, d)
            rows, heads, width = asked.shape
            flat_keys, flat_values = (t.view(rows * heads, -1, width) for t in (keys, values))
            own = torch.bmm(asked.reshape(-1, 1, width), flat_keys.transpose(1, 2)).view(rows, heads, -1)
            mixed, weights = self._join(asked, own, layer)  # (N·H, 1, d), (N·H, 1, E)
            return torch.baddbmm(mixed, weights, flat_values).view_as(q).to(q.dtype)

        return step

    def _join(self, q: Tensor, own: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """One softmax over the prompts' logits and the rows' own (N, H, E) → what the prompts give (N·H, 1, d), and
        the weights (N·H, 1, E) of the rows' own values."""
        rows, heads, width = q.shape
        if self.groups[0].alone:
            mixed, weights = _of_prompt(q, own, self.groups[0], self.masks[0], layer)
        else:
            mixed, weights = torch.empty_like(q), torch.empty_like(own)
            for group, mask in zip(self.groups, self.masks, strict=True):
                members = group.members
                mixed[members], weights[members] = _of_prompt(q[members], own[members], group, mask, layer)
        return mixed.reshape(-1, 1, width), weights.reshape(rows * heads, 1, -1)

    def done(self) -> None:
        """The step's keys now count."""
        self.cache.lengths[: self.rows] += 1


def _mask(prompt: PromptCache, unwritten: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, 1, P + E): −inf where a prompt was filled up and where a row (n, E) has written nothing yet, else 0."""
    mask = torch.zeros(len(unwritten), prompt.extent + unwritten.shape[1], dtype=dtype, device=unwritten.device)
    mask[:, prompt.length : prompt.extent].fill_(-torch.inf)
    mask[:, prompt.extent :].masked_fill_(unwritten, -torch.inf)
    return mask.unsqueeze(1)


def _of_prompt(q: Tensor, own: Tensor, group: Group, mask: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Rows (n, H, d) of one prompt and their own logits (n, H, E) → (what the prompt gives (n, H, d), own weights)."""
    prompt, rows = group.prompt, len(q)
    shared = torch.bmm(_filled(q, group.fill), prompt.keys[layer].transpose(-1, -2))  # (H, n, P): read once for all
    weights = torch.cat((shared[:, :rows].transpose(0, 1), own), dim=-1).add_(mask).softmax(-1)
    given = torch.bmm(_filled(weights[..., : prompt.extent], group.fill), prompt.values[layer])
    return given[:, :rows].transpose(0, 1), weights[..., prompt.extent :]


def _filled(rows: Tensor, fill: int) -> Tensor:
    """(n, H, …) → (H, n + fill, …), zeros behind the rows."""
    turned = rows.transpose(0, 1)
    return F.pad(turned, (0, 0, 0, fill)) if fill else turned
