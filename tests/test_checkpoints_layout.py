"""The published layout as a table: equal to what the modules hold."""

from __future__ import annotations

import math

import pytest
import torch
from checkpoint_makers import small_config

from clvp_cli.checkpoints.layout import PARTS, derived_shapes, derived_tables, expected_shapes, part_of
from clvp_cli.checkpoints.random import full_config, tiny_config
from clvp_cli.config import ClvpConfig, ClvpDecoderConfig, ClvpEncoderConfig
from clvp_cli.model.clvp import ClvpNetwork

ODD = ClvpConfig(
    text_config=ClvpEncoderConfig(hidden_size=48, num_attention_heads=3, projection_dim=20, use_attention_bias=True),
    decoder_config=ClvpDecoderConfig(hidden_size=32, n_inner=50, num_attention_heads=4, use_attention_bias=False),
)


@pytest.mark.parametrize(
    "config", [small_config(), tiny_config(), full_config(), ODD], ids=["small", "tiny", "full", "odd"]
)
def test_table_is_what_the_modules_hold(config: ClvpConfig) -> None:
    """Names and shapes are exactly those of the network built on the meta device."""
    with torch.device("meta"):
        network = ClvpNetwork(config)
    held = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert held == expected_shapes(config)


def test_published_size_counts_as_published() -> None:
    """The published model has 1003 keys, two of them derived, and 665 110 531 parameters, so many in each part."""
    config = full_config()
    shapes = expected_shapes(config)
    assert len(shapes) + len(derived_shapes(config)) == 1003
    counts = {part: sum(math.prod(shape) for name, shape in shapes.items() if part_of(name) == part) for part in PARTS}
    assert counts == {"conditioning": 25_961_472, "decoder": 395_302_914, "text": 118_875_648, "speech": 124_970_496}
    assert sum(counts.values()) + 1 == 665_110_531


def test_derived_tables_follow_the_configuration() -> None:
    """The rotary frequencies are there, in the shapes told, only where the encoder rotates."""
    config = small_config()
    assert {name: tuple(table.shape) for name, table in derived_tables(config).items()} == derived_shapes(config)
    still = ClvpConfig(text_config=ClvpEncoderConfig(use_rotary_embedding=False))
    assert list(derived_shapes(still)) == ["speech_encoder_model.rotary_pos_emb.inv_freq"]
