"""Random weights as the published classes draw them, for training from scratch and for tests. Tensors only."""

from __future__ import annotations

import math

from torch import nn

from ..config import ClvpConfig, ClvpDecoderConfig, ClvpEncoderConfig
from .conditioning import ConditioningEncoder
from .decoder import ClvpDecoderMLP, CodeDecoder
from .encoder import ClvpEncoderMLP, Encoder
from .layers import Conv1D

STD = 0.02


def initialise(module: nn.Module, config: ClvpConfig | ClvpEncoderConfig | ClvpDecoderConfig) -> None:
    """Fill `module` in place from torch's generator; a module on the meta device is left alone.

    Source: the published _init_weights: 0.02 · factor for embeddings and linear layers, the encoders' MLPs and
    projections by width and depth, the decoder's c_proj by initializer_range and depth, norms at one.
    """
    if any(p.is_meta for p in module.parameters()):
        return
    factor = config.initializer_factor
    for part in module.modules():
        if isinstance(part, nn.Embedding | nn.Linear | Conv1D | nn.Conv1d):
            nn.init.normal_(part.weight, std=STD * factor)
            if getattr(part, "bias", None) is not None:
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]
    for part in module.modules():
        if isinstance(part, Encoder):
            _initialise_encoder(part)
        elif isinstance(part, ConditioningEncoder):
            nn.init.normal_(part.mel_conv.weight, std=factor)
        elif isinstance(part, CodeDecoder):
            std = part.config.initializer_range / math.sqrt(2 * part.config.num_hidden_layers)
            for mlp in part.modules():
                if isinstance(mlp, ClvpDecoderMLP):
                    nn.init.normal_(mlp.c_proj.weight, std=std)


def _initialise_encoder(encoder: Encoder) -> None:
    config = encoder.config
    width, factor = config.hidden_size, config.initializer_factor
    for part in encoder.modules():
        if isinstance(part, ClvpEncoderMLP):
            nn.init.normal_(part.fc1.proj.weight, std=(2 * width) ** -0.5 * factor)
            nn.init.normal_(part.fc2.weight, std=width**-0.5 * (2 * config.num_hidden_layers) ** -0.5 * factor)
    nn.init.normal_(encoder.projection.weight, std=width**-0.5 * factor)
