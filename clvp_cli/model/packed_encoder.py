"""An encoder rearranged for speed after loading: by our own kernels in one call, or by them between oneDNN's products.

Built of packed.py's parts, and as those are for inference alone. B batch, S positions, H heads, d head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import native
from .encoder import ClvpEncoderLayer, Encoder
from .layers import LEAST_ROOT, Attend, AttendOne, ClvpRMSNorm
from .packed import PackedAttention, all_ours, owned, packed, replace_each
from .products import OURS, Kind, flowing


class PackedEncoderLayer(nn.Module):
    """A ClvpEncoderLayer for inference. `whole` is all of it for our own kernels, where they have each part."""

    def __init__(self, layer: ClvpEncoderLayer, kind: Kind, dtype: torch.dtype) -> None:
        super().__init__()
        self.norms = [_native_norm(owned(norm, dtype)) for norm in (layer.input_rmsnorm, layer.post_attention_rmsnorm)]
        self.activation_fn = layer.mlp.fc1.activation_fn
        attn, mlp = layer.self_attn, layer.mlp
        self.gates = self.activation_fn is F.gelu and _is_native(dtype, attn.out_proj.weight, mlp.fc2.in_features)
        self.attn = PackedAttention(attn.heads, [attn.q_proj, attn.k_proj, attn.v_proj], attn.out_proj, kind, dtype)
        self.fc1, self.fc2 = (packed(part, kind, dtype) for part in (mlp.fc1.proj, mlp.fc2))
        self.whole = self._whole()

    def _whole(self) -> native.EncoderLayer | None:
        ours = all_ours(self.attn, self.fc1, self.fc2)
        norms = [norm for norm in self.norms if isinstance(norm, native.RmsNorm)]
        if ours is None or not self.gates or len(norms) < len(self.norms):
            return None
        return native.EncoderLayer(norms, ours, self.attn.heads)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        before_attention, before_mlp = self.norms
        x = self.attn(before_attention(x), attend, x)
        both = self.fc1(before_mlp(x))
        if self.gates:
            return self.fc2.add(native.gated(both), x)
        value, gate = both.chunk(2, dim=-1)
        return self.fc2.add(value * self.activation_fn(gate), x)


def _is_native(dtype: torch.dtype, near: Tensor, *widths: int) -> bool:
    """Whether what lies between products is our own kernels', for activations of this type and widths."""
    return dtype == torch.float32 and near.device.type == "cpu" and native.takes(*widths)


def _native_norm(norm: ClvpRMSNorm) -> ClvpRMSNorm | native.RmsNorm:
    weight, clamps = norm.weight.detach(), norm.kind == "clamp"
    if not _is_native(weight.dtype, weight, len(weight)):
        return norm
    return native.RmsNorm(weight, LEAST_ROOT if clamps else norm.eps, clamps=clamps)


@dataclass
class NativeAttendAll(AttendOne):
    """By our own kernel, within each of the sequences whose positions are the rows; `whole` rounds keys and queries."""

    sequences: native.Sequences
    whole: bool

    def joined(self, qkv: Tensor) -> Tensor:
        """(positions, 3, H, d) → (positions, H, d)."""
        return self.sequences.attend(qkv, whole=self.whole)


def attends_all_natively(encoder: Encoder) -> bool:
    """Whether a packed encoder's sequences are attended to by our own kernel."""
    layers, weight = encoder.layers, encoder.token_embedding.weight
    if not len(layers) or not isinstance(layers[0], PackedEncoderLayer) or not _is_native(weight.dtype, weight):
        return False
    return native.attends(encoder.config.hidden_size // encoder.config.num_attention_heads)


@torch.no_grad()
def pack_encoder(encoder: Encoder, kind: Kind, dtype: torch.dtype = torch.float32) -> Encoder:
    """Pack an encoder's layers in place; embedding, norms and projection stay as they are, in the flowing type.

    It has many rows at once, which oneDNN multiplies faster in float32 and bfloat16 than our kernel does.
    """
    if kind in ("full", "brain"):
        kind, dtype = "packed", OURS[kind]
    dtype = flowing(kind, dtype)
    replace_each(encoder.layers, lambda layer: PackedEncoderLayer(cast(ClvpEncoderLayer, layer), kind, dtype))
    for part in (encoder.token_embedding, encoder.final_layer_norm, encoder.projection):
        owned(part, dtype)
    return encoder


def native_encoder(encoder: Encoder) -> native.EncoderStack | None:
    """A packed encoder's layers, if all of each is our own kernels'."""
    layers = [layer.whole for layer in encoder.layers if isinstance(layer, PackedEncoderLayer)]
    whole = [layer for layer in layers if layer is not None]
    return native.EncoderStack(whole) if len(whole) == len(encoder.layers) else None
