"""Tortoise's rlg_auto.pth: the random-voice generator, whose names are kept.

Source: tortoise-tts 3.0.0, models/random_latent_generator.py.
"""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from .adapter import Adapted, Entries, MainSizes, Table, same, shape_of
from .tensors import TensorStore

SIGNATURE = ("layers.0.weight", "layers.0.bias", "layers.5.weight")
LAYERS = 6  # five equalised ones and a plain one


class OtherWidthError(CheckpointError):
    """A generator for another model's vectors: rlg_diffuser.pth makes the diffusion decoder's, twice as wide."""


def table() -> Table:
    """Name → name in RandomVoice."""
    entries: Entries = {}
    for index in range(LAYERS):
        entries |= same(f"layers.{index}", f"layers.{index}")
    return entries


def adapt(store: TensorStore, main: MainSizes) -> tuple[dict[str, Any], Adapted]:
    """Read the file through the table; raises OtherWidthError unless its vectors are as wide as the decoder."""
    width = shape_of(store, "layers.0.weight", 2)[0]
    if main.width not in (None, width):
        raise OtherWidthError(
            f"{store.files[0]}: makes vectors of {width}, the decoder takes {main.width}",
            "the decoder's generator is rlg_auto.pth",
        )
    return {"model_type": "random_voice", "hidden_size": width}, Adapted(store, table())
