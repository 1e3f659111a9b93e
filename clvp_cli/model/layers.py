"""The parts that every block is built of: norms, activations, self-attention, the two MLPs.

Tensors only: no files, no text, no settings of a run. B batch, H heads, S positions, D width, d head width.
An attention module projects and merges; *how* queries meet keys is an `Attend` function handed in, so that the
plain, the masked and the cached way share one definition of a layer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError

LEAST_ROOT = 1e-8  # of a norm's mean square, of kind "clamp"
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v (B, H, S, d), q already scaled → (B, H, S, d)


class AttendOne(ABC):
    """An Attend for one query a row, S = 1, which takes the three as they come out of one projection too."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.joined(torch.stack((q, k, v), dim=1).squeeze(3)).unsqueeze(2)

    @abstractmethod
    def joined(self, qkv: Tensor) -> Tensor:
        """q, k and v (B, 3, H, d) → (B, H, d)."""


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation of that name; raises ConfigError for one that is not known."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation {name!r} is not known", f"known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


@dataclass
class Trace:
    """What a pass leaves behind for people who ask: inputs of each layer and attention weights (B, H, S, S)."""

    hidden_states: list[Tensor] | None = None
    attentions: list[Tensor] | None = None

    @classmethod
    def wanted(cls, *, hidden_states: bool, attentions: bool) -> Trace:
        """A trace that records just what was asked for."""
        return cls([] if hidden_states else None, [] if attentions else None)

    def see(self, hidden: Tensor) -> None:
        """Keep a hidden state if these are wanted."""
        if self.hidden_states is not None:
            self.hidden_states.append(hidden)


@dataclass
class MaskedAttend:
    """Softmax attention under an additive mask, with the weights kept on request.

    `mask` broadcasts to (B, H, S, S): 0 where a key counts, a large negative number where not. `head_mask`, which
    broadcasts likewise, scales the weights that are kept and used. Dropout acts on the weights in training.
    """

    mask: Tensor | None = None
    causal: bool = False
    dropout: float = 0.0
    head_mask: Tensor | None = None
    trace: Trace = field(default_factory=Trace)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.trace.attentions is None and self.head_mask is None:
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=self.mask, is_causal=self.causal, dropout_p=self.dropout, scale=1.0
            )
        logits = q @ k.transpose(-1, -2)  # (B, H, S, S)
        if self.causal:
            logits = logits.masked_fill(causal_hole(q.shape[-2], k.shape[-2], q.device), -math.inf)
        weights = (logits if self.mask is None else logits + self.mask).softmax(-1)
        if self.head_mask is not None:
            weights = weights * self.head_mask
        if self.trace.attentions is not None:
            self.trace.attentions.append(weights)
        return F.dropout(weights, self.dropout, training=self.dropout > 0) @ v


def causal_hole(queries: int, keys: int, device: torch.device) -> Tensor:
    """(queries, keys) True where a query must not look: keys after it, the last query seeing all keys."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).triu(keys - queries + 1)


def additive_mask(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A 0/1 mask of keys (B, S) as an additive one (B, 1, 1, S)."""
    blocked = attention_mask[:, None, None, :].to(torch.bool).logical_not()
    return torch.zeros(blocked.shape, dtype=dtype, device=blocked.device).masked_fill(blocked, torch.finfo(dtype).min)


class ClvpRMSNorm(nn.Module):
    """x / rms(x) · g in float32. Kind "rsqrt" has eps under the root (published), "clamp" max(rms, 1e-8) (Tortoise)."""

    def __init__(self, hidden_size: int, eps: float = 1e-6, kind: str = "rsqrt") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        mean_square = wide.pow(2).mean(-1, keepdim=True)
        if self.kind == "clamp":
            scaled = wide / mean_square.sqrt().clamp(min=LEAST_ROOT)
        else:
            scaled = wide * torch.rsqrt(mean_square + self.eps)
        return self.weight * scaled.to(x.dtype)


class ClvpSelfAttention(nn.Module):
    """Multi-head self-attention with separate projections; out_proj always has a bias (published layout)."""

    def __init__(self, hidden_size: int, heads: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.scale = (hidden_size // heads) ** -0.5
        self.k_proj = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.v_proj = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, D) → q (scaled), k, v (B, H, S, d)."""
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return q * self.scale, k, v

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """(B, S, D) → (B, S, D)."""
        mixed = attend(*self.project(x))  # (B, H, S, d)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(-2))
        return out


class Conv1D(nn.Module):
    """A linear layer whose weight is stored (in, out), as GPT-2's is."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.t(), self.bias)
