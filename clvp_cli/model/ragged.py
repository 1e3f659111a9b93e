"""Sequences of many lengths through an encoder at once, none of them padded.

All positions stand in one row, so that products, norms and activations see one large matrix; attention alone looks at
each sequence by itself. Tensors only. n sequences of one length T, H heads, d head width, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import native
from .encoder import Encoder, rotary_angles, rotate, turns
from .packed_encoder import NativeAttendAll, PackedEncoderLayer, attends_all_natively, native_encoder
from .products import is_whole


def ragged_hidden(encoder: Encoder, groups: Sequence[Tensor]) -> list[Tensor]:
    """Ids (n, T), one tensor a length → last hidden states (n, T, D), as `encoder.hidden` gives them for each group."""
    x = encoder.token_embedding(torch.cat([group.flatten() for group in groups]))  # (ΣnT, D)
    if attends_all_natively(encoder):
        x = _natively(encoder, x, groups)
    else:
        places = torch.cat([torch.arange(group.shape[1], device=x.device).repeat(len(group)) for group in groups])
        attend = RaggedAttend(encoder, places, [(len(group), group.shape[1]) for group in groups])
        for layer in encoder.layers:
            x = layer(x.unsqueeze(0), attend).squeeze(0)
    parts = encoder.final_layer_norm(x).split([group.numel() for group in groups])
    return [part.view(*group.shape, -1) for part, group in zip(parts, groups, strict=True)]


def _natively(encoder: Encoder, x: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """All layers in one call of our own kernels, or those of them that there are for each layer."""
    sequences = native.Sequences([len(row) for group in groups for row in group], *_turns(encoder, groups))
    stack = native_encoder(encoder)
    if stack is not None:
        return stack(x, sequences)
    attend = NativeAttendAll(sequences, is_whole(cast(PackedEncoderLayer, encoder.layers[0]).fc1))
    for layer in encoder.layers:
        x = layer(x, attend)
    return x


def _turns(encoder: Encoder, groups: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, k) of the angles by which k pairs of numbers turn, up to the longest."""
    longest = max(group.shape[1] for group in groups)
    if not encoder.config.use_rotary_embedding:
        return torch.empty(longest, 0), torch.empty(longest, 0)
    return turns(rotary_angles(encoder.config, torch.arange(longest)).chunk(2, dim=-1)[0])


class RaggedAttend:
    """Attention within each sequence; `shapes` are the groups' (n, T), `places` every position's own number."""

    def __init__(self, encoder: Encoder, places: Tensor, shapes: Sequence[tuple[int, int]]) -> None:
        self.shapes = shapes
        self.angles: tuple[Tensor, Tensor] | None = None
        if encoder.config.use_rotary_embedding:
            angles = rotary_angles(encoder.config, places.unsqueeze(0)).unsqueeze(1)  # (1, 1, S, rotary_dim)
            self.angles = turns(angles, encoder.token_embedding.weight.dtype)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # each (1, H, S, d)
        if self.angles is not None:
            q, k, v = (rotate(t, *self.angles) for t in (q, k, v))
        mixed = q.new_empty(q.shape[2], q.shape[1], q.shape[3])  # (S, H, d)
        start = 0
        for n, length in self.shapes:
            end = start + n * length
            group = (t[0, :, start:end].reshape(t.shape[1], n, length, -1).transpose(0, 1) for t in (q, k, v))
            mixed[start:end] = _attention(*group).transpose(1, 2).flatten(0, 1)
            start = end
        return mixed.transpose(0, 1).unsqueeze(0)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full attention (n, H, T, d) of queries that are scaled already."""
    if q.dtype == torch.bfloat16 and q.device.type == "cpu":  # twice as quick there as the fused kernel
        shape = q.shape
        q, k, v = (t.reshape(-1, *shape[2:]) for t in (q, k, v))
        return torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v).view(shape)
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)
