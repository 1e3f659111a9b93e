"""Keys and values that generation keeps: a prompt's once for all its candidates, each candidate's own beside it.

Tensors only. L layers, H heads, P prompt positions, N rows, T codes, d head width. Attention of a step looks at both
parts and joins them in one softmax, so that a prompt is never copied N times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..model.layers import Attend, MaskedAttend


@dataclass(frozen=True)
class PromptCache:
    """keys, values: (L, H, P, d) of one prompt, its start code included."""

    keys: Tensor
    values: Tensor

    @property
    def length(self) -> int:
        """P."""
        return self.keys.shape[2]


class PromptRecorder:
    """Runs a prompt causally and keeps its keys and values."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def attend(self, layer: int) -> Attend:
        """The way of layer `layer`, called in order."""
        causal = MaskedAttend(causal=True)

        def record(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.layers.append((k[0], v[0]))
            return causal(q, k, v)

        return record

    def cache(self) -> PromptCache:
        """What was recorded."""
        keys, values = zip(*self.layers, strict=True)
        return PromptCache(torch.stack(keys), torch.stack(values))


class RowCache:
    """Keys and values of N rows, each at its own length, in slots that are filled, moved and left.

    keys, values: (L, N, H, capacity, d), zeros that take no memory on the CPU until they are written. `lengths` (N,)
    counts the codes of each row.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.keys, self.values = lazy_zeros(shape, dtype, device), lazy_zeros(shape, dtype, device)
        self.lengths = torch.zeros(shape[1], dtype=torch.long, device=device)

    def move(self, source: int, target: int) -> None:
        """Let row `source` take the slot `target`."""
        length = int(self.lengths[source])
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]
        self.lengths[target] = length

    def reorder(self, rows: Tensor) -> None:
        """Let slot i hold what slot rows[i] held: beams that fork and die."""
        count = len(rows)
        self.keys[:, :count] = self.keys[:, rows]
        self.values[:, :count] = self.values[:, rows]
        self.lengths[:count] = self.lengths[rows]


class StepAttend:
    """One step of `rows` live rows: writes the new key and value, then attends to the prompt and to the row.

    `groups` pairs each prompt with the rows (n,) that continue it; together they name rows 0 … rows − 1 once.
    """

    def __init__(self, cache: RowCache, groups: list[tuple[PromptCache, Tensor]], rows: int) -> None:
        self.cache, self.groups, self.rows = cache, groups, rows
        lengths = cache.lengths[:rows]
        self.longest = int(lengths.max()) + 1
        self.at = lengths
        self.all = torch.arange(rows, device=lengths.device)
        steps = torch.arange(self.longest, device=lengths.device)
        ragged = bool((lengths != lengths[0]).any())
        self.hole = (steps > lengths.unsqueeze(1))[:, None, None, :] if ragged else None  # (N, 1, 1, T)

    def attend(self, layer: int) -> Attend:
        """The way of layer `layer`."""

        def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # each (N, H, 1, d)
            keys, values = self.cache.keys[layer], self.cache.values[layer]
            keys[self.all, :, self.at], values[self.all, :, self.at] = k[:, :, 0], v[:, :, 0]
            own = q @ keys[: self.rows, :, : self.longest].transpose(-1, -2)  # (N, H, 1, T)
            if self.hole is not None:
                own = own.masked_fill(self.hole, -torch.inf)
            own_values = values[: self.rows, :, : self.longest]
            if len(self.groups) == 1:
                return _join(q, own, own_values, self.groups[0][0], layer)
            mixed = torch.empty_like(q)
            for prompt, members in self.groups:
                mixed[members] = _join(q[members], own[members], own_values[members], prompt, layer)
            return mixed

        return step

    def done(self) -> None:
        """The step's keys now count."""
        self.cache.lengths[: self.rows] += 1


def _join(q: Tensor, own: Tensor, own_values: Tensor, prompt: PromptCache, layer: int) -> Tensor:
    """One softmax over the prompt's logits and the rows' own (n, H, 1, T) → mixed values (n, H, 1, d)."""
    by_head = q[:, :, 0].transpose(0, 1)  # (H, n, d): the prompt is read once for all rows
    shared = (by_head @ prompt.keys[layer].transpose(-1, -2)).transpose(0, 1).unsqueeze(2)  # (n, H, 1, P)
    weights = torch.cat((shared, own), dim=-1).softmax(-1)
    front, back = weights[..., : prompt.length], weights[..., prompt.length :]
    from_prompt = front[:, :, 0].transpose(0, 1) @ prompt.values[layer]  # (H, n, d)
    return from_prompt.transpose(0, 1).unsqueeze(2) + back @ own_values


def lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on the CPU from the operating system's own zero pages, which cost nothing until they are written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    width = torch.empty(0, dtype=dtype).element_size()
    return torch.from_numpy(np.zeros(shape, dtype=f"V{width}").view(f"i{width}")).view(dtype)
