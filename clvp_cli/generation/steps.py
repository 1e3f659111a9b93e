"""How the rows of a step attend: to the prompt that they share, and to what each has said itself.

Tensors only. H heads, P prompt positions, N rows, E extent of the rows' caches, d head width. Both parts are joined in
one softmax, so that a prompt is never copied N times.

A row's result has the same bits whatever rows are beside it. Our own kernel looks at each row alone. In PyTorch's,
extents grow by whole BLOCKs that are masked (a masked key adds an exact zero), prompts are filled up to whole vectors
likewise (the kernels' tails round otherwise), and products have shapes whose kernels do not look at the number of rows
(see model/products).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import native
from ..model.decoder import CodeDecoder
from ..model.layers import AttendOne
from ..model.packed import NativeAttend, attends_natively, least_queries, native_decoder
from .cache import PromptCache, RowCache


class Step(ABC):
    """One step of the first N rows of a cache."""

    def __init__(self, cache: RowCache, rows: int) -> None:
        self.cache, self.lengths = cache, cache.lengths[:rows]

    @abstractmethod
    def attend(self, layer: int) -> AttendOne:
        """The way of layer `layer`: write keys and values, then attend."""

    def logits(self, decoder: CodeDecoder, codes: Tensor, positions: Tensor) -> Tensor:
        """Each row's code (N, 1) at its position (N, 1) through all of the decoder → (N, V)."""
        stack = decoder.stack
        return decoder.logits(stack.hidden(stack.embed(codes, positions), self.attend)[:, 0])

    def done(self) -> None:
        """The step's keys now count."""
        self.lengths += 1


class Sharing(ABC):
    """Which rows continue which of the `prompts`; made anew when a row comes or goes."""

    def __init__(self, cache: RowCache, prompts: Sequence[PromptCache], owners: Tensor) -> None:
        self.cache, self.prompts, self.owners = cache, prompts, owners

    @property
    def alone(self) -> bool:
        """Whether all rows continue one prompt."""
        return len(self.prompts) == 1

    @abstractmethod
    def step(self, rows: int, place: int | None) -> Step:
        """A step of the first rows. `place` is what `make_room` told; None where it is not to count on."""


def sharing(decoder: CodeDecoder, cache: RowCache, prompts: Sequence[PromptCache], owners: Tensor) -> Sharing:
    """Rows by prompt: owners (N,) says which of `prompts` each row continues."""
    if attends_natively(decoder):
        return NativeSharing(native_decoder(decoder), cache, prompts, owners)
    return GroupedSharing(cache, prompts, owners, least_queries(decoder))


class NativeSharing(Sharing):
    """For our own kernel: where everything lies, in each layer; `whole`, if it has all of a step."""

    def __init__(
        self,
        whole: native.Decoder | None,
        cache: RowCache,
        prompts: Sequence[PromptCache],
        owners: Tensor,
    ) -> None:
        super().__init__(cache, prompts, owners)
        parts = zip(cache.layers, zip(*(prompt.laid for prompt in prompts), strict=True), strict=True)
        self.attentions = [native.Attention(own, shared, owners) for own, shared in parts]
        self.whole, self.places = whole, native.Places(self.attentions)

    def step(self, rows: int, place: int | None) -> Step:
        """A step of the first rows, wherever each of them writes."""
        return NativeStep(self, rows)


class NativeStep(Step):
    """A step by our own kernel."""

    def __init__(self, sharing: NativeSharing, rows: int) -> None:
        super().__init__(sharing.cache, rows)
        self.sharing = sharing

    def logits(self, decoder: CodeDecoder, codes: Tensor, positions: Tensor) -> Tensor:
        """All of it in one call, if our own kernels have it."""
        if self.sharing.whole is None:
            return super().logits(decoder, codes, positions)
        return self.sharing.whole(codes, positions, self.sharing.places, self.lengths)

    def attend(self, layer: int) -> AttendOne:
        """The attention alone, between products of other kinds."""
        return NativeAttend(self.sharing.attentions[layer], self.lengths)


@dataclass(frozen=True)
class Group:
    """A prompt and the rows (n,) that continue it.

    `alone` says that the rows are all there are, in order; `fill` how many rows of zeros the kernels want beside them.
    """

    prompt: PromptCache
    members: Tensor
    alone: bool
    fill: int


class GroupedSharing(Sharing):
    """For PyTorch's kernels: the rows of each prompt together."""

    def __init__(self, cache: RowCache, prompts: Sequence[PromptCache], owners: Tensor, least: int) -> None:
        super().__init__(cache, prompts, owners)
        # `least` is how many rows of one prompt the kernels want
        found = [(prompt, torch.nonzero(owners == number).flatten()) for number, prompt in enumerate(prompts)]
        self.groups = [
            Group(prompt, members, len(members) == len(owners), max(0, least - len(members)))
            for prompt, members in found
            if len(members)
        ]

    def step(self, rows: int, place: int | None) -> Step:
        """A step of the first rows."""
        return GroupedStep(self.cache, self.groups, rows, place)


class GroupedStep(Step):
    """A step by PyTorch's products."""

    def __init__(self, cache: RowCache, groups: list[Group], rows: int, place: int | None) -> None:
        super().__init__(cache, rows)
        self.groups, self.place = groups, place
        self.views = cache.views(rows)
        self.all = torch.arange(rows, device=self.lengths.device)
        steps = torch.arange(cache.extent, device=self.lengths.device)
        unwritten = steps > self.lengths.unsqueeze(1)  # (N, E)
        self.masks = [
            _mask(group.prompt, unwritten if group.alone else unwritten[group.members], cache.layers[0].dtype)
            for group in groups
        ]

    def attend(self, layer: int) -> AttendOne:
        """The parts one after another."""
        return GroupedAttend(self, layer)

    def mix(self, layer: int, qkv: Tensor) -> Tensor:
        """(N, 3, H, d) → (N, H, d) of a layer."""
        self._write(layer, qkv[:, 1:])
        return self._found(layer, qkv[:, 0]).to(qkv.dtype)

    def _write(self, layer: int, new: Tensor) -> None:
        """Put keys and values (N, 2, H, d) behind those of each row."""
        slots = self.views[layer].slots
        if self.place is None:
            slots[:, self.all, :, self.lengths] = new.to(slots.dtype)
        else:
            slots.select(3, self.place).copy_(new.transpose(0, 1))

    def _found(self, layer: int, q: Tensor) -> Tensor:
        """Queries (N, H, d) → what they find in the prompt and in their row (N, H, d)."""
        rows, heads, width = q.shape
        _, keys, values = self.views[layer]
        q = q.to(keys.dtype)
        own = torch.bmm(q.reshape(-1, 1, width), keys).view(rows, heads, -1)
        if self.groups[0].alone:
            mixed, weights = _of_prompt(q, own, self.groups[0], self.masks[0], layer)
        else:
            mixed, weights = torch.empty_like(q), torch.empty_like(own)
            for group, mask in zip(self.groups, self.masks, strict=True):
                members = group.members
                mixed[members], weights[members] = _of_prompt(q[members], own[members], group, mask, layer)
        flat = mixed.reshape(-1, 1, width), weights.reshape(rows * heads, 1, -1)
        return torch.baddbmm(flat[0], flat[1], values).view(rows, heads, width)


@dataclass
class GroupedAttend(AttendOne):
    """The way of one layer of a step."""

    step: GroupedStep
    layer: int

    def joined(self, qkv: Tensor) -> Tensor:
        """(N, 3, H, d) → (N, H, d)."""
        return self.step.mix(self.layer, qkv)


def _mask(prompt: PromptCache, unwritten: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, 1, P + E): −inf where a prompt was filled up and where a row (n, E) has written nothing yet, else 0."""
    mask = torch.zeros(len(unwritten), prompt.extent + unwritten.shape[1], dtype=dtype, device=unwritten.device)
    mask[:, prompt.length : prompt.extent].fill_(-torch.inf)
    mask[:, prompt.extent :].masked_fill_(unwritten, -torch.inf)
    return mask.unsqueeze(1)


def _of_prompt(q: Tensor, own: Tensor, group: Group, mask: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Rows (n, H, d) of one prompt and their own logits (n, H, E) → (what the prompt gives (n, H, d), own weights)."""
    prompt, rows = group.prompt, len(q)
    keys, values = prompt.layers[layer]
    shared = torch.bmm(_filled(q, group.fill), keys.transpose(1, 2))  # (H, n, P): read once for all
    seen = shared[:, :rows] if group.fill else shared
    weights = torch.cat((seen.transpose(0, 1), own), dim=-1).add_(mask).softmax(-1)
    of_prompt, of_rows = weights.tensor_split((prompt.extent,), -1)
    given = torch.bmm(_filled(of_prompt, group.fill), values)
    return (given[:, :rows] if group.fill else given).transpose(0, 1), of_rows


def _filled(rows: Tensor, fill: int) -> Tensor:
    """(n, H, …) → (H, n + fill, …), zeros behind the rows."""
    turned = rows.transpose(0, 1)
    return F.pad(turned, (0, 0, 0, fill)) if fill else turned
