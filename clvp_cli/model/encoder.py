"""The text and the speech encoder: ids → one vector (behaviour.md's section 7; the published `ClvpEncoder`).

Tensors only. B batch, S positions, D width, H heads, d head width, E projection width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..config import ClvpEncoderConfig
from ..errors import ConfigError
from .layers import Attend, ClvpRMSNorm, ClvpSelfAttention, MaskedAttend, Trace, activation, additive_mask

ROTARY_BASE = 10_000.0


def rotary_inv_freq(config: ClvpEncoderConfig) -> Tensor:
    """(rotary_dim / 2,) float32: the published `rotary_pos_emb.inv_freq`, a function of the configuration."""
    dim = config.rotary_dim
    exponents = torch.arange(0, dim, 2, dtype=torch.int64).float() / dim
    table: Tensor = 1.0 / torch.full_like(exponents, ROTARY_BASE).pow(exponents)
    return table


def rotary_angles(config: ClvpEncoderConfig, positions: Tensor) -> Tensor:
    """Angles (…, S, rotary_dim) in float32 for positions (…, S); ConfigError where heads are less wide than that."""
    width = config.hidden_size // config.num_attention_heads
    if width < config.rotary_dim:
        raise ConfigError(f"heads are {width} wide, but {config.rotary_dim} numbers of each are to be rotated")
    half = positions.float().unsqueeze(-1) * rotary_inv_freq(config).to(positions.device)
    return torch.cat((half, half), dim=-1)


def turns(angles: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """The cosines and sines of float32 angles in `dtype`, on a CPU by NumPy in float64.

    PyTorch's own first ones of a process, by several threads, were seen to be wrong by 1.5e-4 in one of six runs.
    """
    if angles.device.type != "cpu":
        return angles.cos().to(dtype), angles.sin().to(dtype)
    wide = angles.double().numpy()
    return torch.from_numpy(np.cos(wide)).to(dtype), torch.from_numpy(np.sin(wide)).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the leading dimensions of each head (B, H, S, d) by the angles; pair i with i + half ("rotate half")."""
    turned, kept = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    return torch.cat((turned * cos + torch.cat((-second, first), dim=-1) * sin, kept), dim=-1)


class ClvpGatedLinearUnit(nn.Module):
    """First half · activation(second half)."""

    def __init__(self, config: ClvpEncoderConfig) -> None:
        super().__init__()
        self.activation_fn = activation(config.hidden_act)
        self.proj = nn.Linear(config.hidden_size, config.intermediate_size * 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        out: Tensor = value * self.activation_fn(gate)
        return out


class ClvpEncoderMLP(nn.Module):
    """Gated unit, dropout, linear."""

    def __init__(self, config: ClvpEncoderConfig) -> None:
        super().__init__()
        self.fc1 = ClvpGatedLinearUnit(config)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout_layer = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.dropout_layer(self.fc1(x)))
        return out


class ClvpEncoderLayer(nn.Module):
    """x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, config: ClvpEncoderConfig) -> None:
        super().__init__()
        self.self_attn = ClvpSelfAttention(
            config.hidden_size,
            config.num_attention_heads,
            bias=config.use_attention_bias,
            dropout=config.attention_dropout,
        )
        self.mlp = ClvpEncoderMLP(config)
        self.input_rmsnorm = ClvpRMSNorm(config.hidden_size, config.layer_norm_eps, config.rms_norm)
        self.post_attention_rmsnorm = ClvpRMSNorm(config.hidden_size, config.layer_norm_eps, config.rms_norm)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_rmsnorm(x), attend)
        out: Tensor = x + self.mlp(self.post_attention_rmsnorm(x))
        return out


class Encoder(nn.Module):
    """Embedding → layers → final norm → summary → projection.

    Source: the published ClvpEncoder; rotary positions turn v as well as q and k, as there. Unlike there, pads do
    not count: with an `attention_mask` the summary is over the positions it keeps, so a row's embedding is the one
    it has alone.
    """

    def __init__(self, config: ClvpEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([ClvpEncoderLayer(config) for _ in range(config.num_hidden_layers)])
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

    def hidden(
        self,
        embeds: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Embeddings (B, S, D), mask (B, S) of 0/1, positions (B or 1, S) → last hidden states (B, S, D), normed."""
        trace = trace or Trace()
        attend = self._attend(embeds, attention_mask, position_ids, trace)
        x = embeds
        for layer in self.layers:
            trace.see(x)
            x = layer(x, attend)
        trace.see(x)
        out: Tensor = self.final_layer_norm(x)
        return out

    def _attend(
        self, embeds: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, trace: Trace
    ) -> Attend:
        mask = None if attention_mask is None else additive_mask(attention_mask, embeds.dtype)
        dropout = self.config.attention_dropout if self.training else 0.0
        plain = MaskedAttend(mask, dropout=dropout, trace=trace)
        if not self.config.use_rotary_embedding:
            return plain
        if position_ids is None:
            position_ids = torch.arange(embeds.shape[1], device=embeds.device).unsqueeze(0)
        angles = rotary_angles(self.config, position_ids).unsqueeze(1)  # (B or 1, 1, S, rotary_dim)
        cos, sin = turns(angles, embeds.dtype)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return plain(rotate(q, cos, sin), rotate(k, cos, sin), rotate(v, cos, sin))

        return attend

    def summarise(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, S, D) → (B, D) by the configuration's summary_type. cls_index without an index means last."""
        if self.config.summary_type == "first":
            return hidden[:, 0]
        if self.config.summary_type == "mean":
            if attention_mask is None:
                return hidden.mean(1)
            weights = attention_mask.to(hidden.dtype).unsqueeze(-1)
            return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        if attention_mask is None:
            return hidden[:, -1]
        steps = torch.arange(hidden.shape[1], device=hidden.device)
        last = (attention_mask.to(torch.long) * steps).argmax(1)  # the last kept position
        return hidden[torch.arange(len(hidden), device=hidden.device), last]

    def embed(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Ids (B, S) → embeddings (B, E), not normalised."""
        out: Tensor = self.projection(
            self.summarise(self.hidden(self.token_embedding(ids), attention_mask), attention_mask)
        )
        return out
