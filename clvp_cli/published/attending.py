"""How the published decoder's queries meet their keys: a cache, a padding mask and head masks over one causal rule.

B batch, S positions fed, P positions in the cache, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..model.layers import Attend, MaskedAttend, Trace, causal_hole
from .outputs import Past


class CachedAttend:
    """How each layer meets its keys: those of the cache first, then its own, under one causal mask."""

    def __init__(
        self, past: Past | None, head_masks: list[Tensor | None], mask: Tensor | None, dropout: float, trace: Trace
    ) -> None:
        self.past, self.head_masks, self.mask, self.dropout, self.trace = past, head_masks, mask, dropout, trace
        self.presents: list[tuple[Tensor, Tensor]] = []

    def __call__(self, layer: int) -> Attend:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if self.past is not None:
                k, v = (torch.cat(pair, dim=-2) for pair in zip(self.past[layer], (k, v), strict=True))
            self.presents.append((k, v))
            plain = MaskedAttend(
                self.mask,
                causal=self.mask is None and self.past is None,
                dropout=self.dropout,
                head_mask=self.head_masks[layer],
                trace=self.trace,
            )
            return plain(q, k, v)

        return attend


def decoder_mask(attention_mask: Tensor | None, embeds: Tensor, past: int) -> Tensor | None:
    """The additive causal mask (B or 1, 1, S, P + S), or None where plain causal attention does."""
    steps = embeds.shape[1]
    if attention_mask is None and (past == 0 or steps == 1):
        return None
    blocked = causal_hole(steps, past + steps, embeds.device)[None, None]
    if attention_mask is not None:
        if attention_mask.shape[-1] != past + steps:
            raise InputError(
                f"attention_mask of {attention_mask.shape[-1]} positions: {past} in the cache and {steps} new are fed"
            )
        blocked = blocked | ~attention_mask[:, None, None, :].to(torch.bool)
    return torch.zeros(blocked.shape, dtype=embeds.dtype, device=embeds.device).masked_fill(
        blocked, torch.finfo(embeds.dtype).min
    )


def layer_head_masks(head_mask: Tensor | None, layers: int) -> list[Tensor | None]:
    """A head mask (H,), (layers, H) or one that already broadcasts to (layers, B, H, S, S), split by layer."""
    if head_mask is None:
        return [None] * layers
    if head_mask.dim() == 1:
        head_mask = head_mask.expand(layers, -1)
    if head_mask.dim() == 2:
        head_mask = head_mask[:, None, :, None, None]
    if head_mask.dim() != 5 or len(head_mask) != layers:
        raise InputError(f"head_mask {tuple(head_mask.shape)}: (heads,) or ({layers}, heads) is expected")
    return list(head_mask)
