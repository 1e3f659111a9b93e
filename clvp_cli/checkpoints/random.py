"""Model directories of random weights: for tests, for trying the program out, and to train from.

Weights are drawn as the published classes draw them, one tensor at a time and each from its own stream, so the whole
need not fit in memory and a tensor does not depend on its neighbours.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import ClvpConfig, ClvpDecoderConfig, ClvpEncoderConfig
from ..errors import UsageError
from .layout import PARTS, SCALE, expected_shapes, part_of
from .save import MAX_SHARD_BYTES, Weights, replacing, write_companions, write_model
from .tensors import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

STD = 0.02
SPEECH_CODES = 8192


def full_config() -> ClvpConfig:
    """The published model's sizes: 665 110 531 parameters."""
    return ClvpConfig(speech_config=ClvpEncoderConfig(vocab_size=SPEECH_CODES))


def tiny_config() -> ClvpConfig:
    """The smallest sizes that still have every kind of layer, more than one of each: 2.0 M parameters."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "projection_dim": 64, "num_hidden_layers": 2}
    return ClvpConfig(
        text_config=ClvpEncoderConfig(**sizes, num_attention_heads=2),
        speech_config=ClvpEncoderConfig(**sizes, num_attention_heads=2, vocab_size=SPEECH_CODES),
        decoder_config=ClvpDecoderConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_mel_attn_blocks=2
        ),
        projection_dim=64,
    )


def random_directory(
    path: Path,
    config: str | ClvpConfig = "tiny",
    seed: int = 0,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    dtype: str | None = None,
    force: bool = False,
) -> None:
    """Make a published directory of random weights.

    Args:
        path: the directory to make.
        config: "full", "tiny", or any configuration.
        seed: the same seed and configuration give the same weights, however they are sharded.
        max_shard_bytes, dtype, force: as for `save_directory`.
    Raises:
        UsageError: no configuration of that name.
        OutputError: something is at `path`, or the disk is full.
    """
    if isinstance(config, str):
        named = {"full": full_config, "tiny": tiny_config}
        if config not in named:
            raise UsageError(f"no configuration is named {config!r}", f"known are {', '.join(named)}")
        config = named[config]()
    sizes = config
    sizes.check_depth()
    shapes = expected_shapes(sizes)
    infos = {name: TensorInfo(name, "F32", shape) for name, shape in shapes.items()}
    main = Weights(sizes.to_json_string(), infos, lambda name: draw(name, shapes[name], sizes, seed))
    with replacing(path, force) as directory:
        write_model(directory, sizes, main, dtype, max_shard_bytes)
        write_companions(directory, sizes, None, {})


def draw(name: str, shape: tuple[int, ...], config: ClvpConfig, seed: int) -> Tensor:
    """One tensor as the published classes initialise it, float32, from a stream of its own."""
    import torch

    if name == SCALE:
        return torch.tensor(float(config.logit_scale_init_value))
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if "norm" in name:
        return torch.ones(shape)
    stream = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little", signed=True)
    generator = torch.Generator().manual_seed(stream)
    return torch.empty(shape).normal_(0.0, spread(name, config), generator=generator)


def spread(name: str, config: ClvpConfig) -> float:
    """The standard deviation of a weight.

    Source: the published _init_weights: embeddings and linear layers 0.02, an encoder's MLP and projection by width
    and depth, the mel convolution 1, the decoder's c_proj by initializer_range and depth; each times the factor.
    """
    part = part_of(name)
    factor = config.initializer_factor
    if name.endswith("mel_conv.weight"):
        return factor
    if name.endswith("mlp.c_proj.weight"):
        return config.decoder_config.initializer_range / math.sqrt(2 * config.decoder_config.num_hidden_layers)
    if part not in ("text", "speech"):
        return STD * factor
    encoder = config.text_config if part == "text" else config.speech_config
    by_width = encoder.initializer_factor / math.sqrt(encoder.hidden_size)
    if name.endswith("mlp.fc1.proj.weight"):
        return by_width / math.sqrt(2)
    if name.endswith("mlp.fc2.weight"):
        return by_width / math.sqrt(2 * encoder.num_hidden_layers)
    return by_width if name == f"{PARTS[part]}projection.weight" else STD * factor
