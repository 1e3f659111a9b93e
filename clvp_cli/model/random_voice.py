"""A voice out of nothing: Gaussian noise → a conditioning vector the decoder takes for a speaker's.

Tensors only. B batch, D width of the decoder.

Source: tortoise-tts 3.0.0, models/random_latent_generator.py (RandomLatentConverter; rlg_auto.pth).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import PublishedConfig

LEARNING_RATE_FACTOR = 0.1  # StyleGAN's equalised learning rate: weights are stored 1/0.1 as large as they act
NEGATIVE_SLOPE = 0.2
HIDDEN_LAYERS = 5


@dataclass(frozen=True, init=False)
class RandomVoiceConfig(PublishedConfig):
    """The one size it has. The default is that of Tortoise's file."""

    model_type: ClassVar[str] = "random_voice"
    hidden_size: int = 1024


class EqualLinear(nn.Linear):
    """leaky_relu(x · Wᵀ · 0.1/√D + 0.1 · b) · √2."""

    def forward(self, x: Tensor) -> Tensor:
        scale = LEARNING_RATE_FACTOR / math.sqrt(self.in_features)
        linear = F.linear(x, self.weight * scale, self.bias * LEARNING_RATE_FACTOR)
        return F.leaky_relu(linear, NEGATIVE_SLOPE) * math.sqrt(2)


class RandomVoice(nn.Module):
    """Five equalised layers and a plain one."""

    def __init__(self, config: RandomVoiceConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.layers = nn.Sequential(*(EqualLinear(width, width) for _ in range(HIDDEN_LAYERS)), nn.Linear(width, width))

    def forward(self, noise: Tensor) -> Tensor:
        """Standard normal noise (B, D) → conditioning vectors (B, D)."""
        out: Tensor = self.layers(noise)
        return out

    def sample(self, seed: int) -> Tensor:
        """The voice (1, D) of that seed: the same on every machine, drawn on the CPU in float32."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, self.config.hidden_size, generator=generator)
        weight = next(self.parameters())
        return self.forward(noise.to(weight.device, weight.dtype))
