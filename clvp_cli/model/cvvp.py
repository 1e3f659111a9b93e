"""CVVP: how well codes fit a voice (Tortoise's second judge): log-mel and codes → unit vectors → cosine.

Tensors only. The towers are CLVP's layers without a mask, with Tortoise's norm, and a conv/attention/conv mixer
before the mean. Its norms run over time, so rows of different lengths are never batched: give equal lengths.
B batch, T codes, F mel frames, S positions, D width.

Source: tortoise-tts 3.0.0, models/cvvp.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ClvpEncoderConfig, PublishedConfig
from .conditioning import group_norm_groups
from .encoder import ClvpEncoderLayer, rotary_angles, rotate, turns
from .layers import ClvpSelfAttention, MaskedAttend


@dataclass(frozen=True, init=False)
class CvvpConfig(PublishedConfig):
    """Sizes of a CVVP. Defaults are those of Tortoise's file."""

    model_type: ClassVar[str] = "cvvp"
    hidden_size: int = 512
    num_attention_heads: int = 8
    intermediate_size: int = 512
    num_voice_layers: int = 8
    num_speech_layers: int = 8
    vocab_size: int = 8192
    feature_size: int = 80

    def __post_init__(self) -> None:
        self._check()
        self.check_depth()

    def tower(self) -> ClvpEncoderConfig:
        """The configuration of its layers, as CLVP's encoders have it."""
        return ClvpEncoderConfig(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            projection_dim=self.hidden_size,
            num_attention_heads=self.num_attention_heads,
            rms_norm="clamp",
        )


class CvvpTower(nn.Module):
    """Embedded positions → one vector: rotary layers, norm, mixer, mean, projection."""

    def __init__(self, config: CvvpConfig, layers: int) -> None:
        super().__init__()
        self.config = config.tower()
        width = config.hidden_size
        self.layers = nn.ModuleList([ClvpEncoderLayer(self.config) for _ in range(layers)])
        self.final_layer_norm = nn.LayerNorm(width)
        self.mix_in = nn.Conv1d(width, width, kernel_size=1)
        self.mix_norm = nn.GroupNorm(group_norm_groups(width), width, eps=1e-5)
        self.mix_attn = ClvpSelfAttention(width, config.num_attention_heads, bias=True, dropout=0.0)
        self.mix_out = nn.Conv1d(width, width, kernel_size=1)
        self.projection = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) → (B, D), of length one."""
        positions = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
        angles = rotary_angles(self.config, positions).unsqueeze(1)  # (1, 1, S, rotary_dim)
        cos, sin = turns(angles, x.dtype)
        plain = MaskedAttend()

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return plain(rotate(q, cos, sin), rotate(k, cos, sin), rotate(v, cos, sin))

        for layer in self.layers:
            x = layer(x, attend)
        mixed = self.mix_in(self.final_layer_norm(x).transpose(1, 2))  # (B, D, S)
        mixed = mixed + self.mix_attn(self.mix_norm(mixed).transpose(1, 2), plain).transpose(1, 2)
        return F.normalize(self.projection(self.mix_out(mixed).mean(2)).float(), dim=-1)


class Cvvp(nn.Module):
    """Voice tower, speech tower, and the scale between them."""

    def __init__(self, config: CvvpConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.voice_convs = nn.ModuleList(
            [
                nn.Conv1d(config.feature_size, width // 2, kernel_size=5, stride=2, padding=2),
                nn.Conv1d(width // 2, width, kernel_size=3, stride=2, padding=1),
            ]
        )
        self.voice_tower = CvvpTower(config, config.num_voice_layers)
        self.speech_embedding = nn.Embedding(config.vocab_size, width)
        self.speech_tower = CvvpTower(config, config.num_speech_layers)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def embed_voice(self, mels: Tensor) -> Tensor:
        """Log-mels (B, 80, F) → unit vectors (B, D)."""
        x = mels
        for conv in self.voice_convs:  # no activation between them: Tortoise's way
            x = conv(x)
        out: Tensor = self.voice_tower(x.transpose(1, 2))
        return out

    def embed_speech(self, codes: Tensor) -> Tensor:
        """Codes (B, T) → unit vectors (B, D)."""
        out: Tensor = self.speech_tower(self.speech_embedding(codes))
        return out

    def forward(self, mels: Tensor, codes: Tensor) -> Tensor:
        """Log-mels (B or 1, 80, F) and codes (B, T) → cosine · exp(logit_scale), (B,)."""
        cosine = (self.embed_voice(mels) * self.embed_speech(codes)).sum(-1)
        return cosine * self.logit_scale.float().exp()
