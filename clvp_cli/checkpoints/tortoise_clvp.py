"""Tortoise's clvp2.pth: the table to the published text and speech encoders, and the sizes it shows.

Source: tortoise-tts 3.0.0, models/clvp.py (CLVP with x-transformers encoders).
"""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from .adapter import Entries, Table, count, same, shape_of
from .layout import INV_FREQ, SCALE
from .tensors import TensorStore
from .tortoise_blocks import HEAD_WIDTH, encoder_layer, stack

SIGNATURE = ("text_emb.weight", "to_text_latent.weight", "to_speech_latent.weight")
SIDES = ("text", "speech")


def sizes(store: TensorStore) -> dict[str, Any]:
    """What the shapes show, as the content of a config.json."""
    encoders = {f"{side}_config": _encoder_sizes(store, side) for side in SIDES}
    return {**encoders, "projection_dim": encoders["text_config"]["projection_dim"]}


def _encoder_sizes(store: TensorStore, side: str) -> dict[str, Any]:
    layers = count(store.infos, f"{stack(side)}.layers.")
    vocab, width = shape_of(store, f"{side}_emb.weight", 2)
    inner = shape_of(store, f"{stack(side)}.layers.0.1.wrap.to_q.weight", 2)[0]
    if inner != width or inner % HEAD_WIDTH:
        raise CheckpointError(
            f"{store.files[0]}: attention of width {inner} in an encoder of width {width}",
            "only encoders whose width is 64 · heads can be read",
        )
    return {
        "vocab_size": vocab,
        "hidden_size": width,
        "projection_dim": shape_of(store, f"to_{side}_latent.weight", 2)[0],
        "intermediate_size": shape_of(store, f"{stack(side)}.layers.1.1.wrap.net.3.weight", 2)[1],
        "num_hidden_layers": layers // 2,  # attention and feed-forward are entries of their own
        "num_attention_heads": inner // HEAD_WIDTH,
    }


def table(layers: dict[str, int]) -> Table:
    """Name → published name, for so many layers of each side."""
    entries: Entries = {"temperature": SCALE}
    for side in SIDES:
        target = f"{side}_encoder_model"
        entries |= {
            f"{side}_emb.weight": f"{target}.token_embedding.weight",
            f"to_{side}_latent.weight": f"{target}.projection.weight",
            f"{stack(side)}.rotary_pos_emb.inv_freq": f"{target}.{INV_FREQ}",
            **same(f"{side}_transformer.transformer.norm", f"{target}.final_layer_norm"),
        }
        for index in range(layers[side]):
            entries |= encoder_layer(f"{stack(side)}.layers", f"{target}.layers.{index}", index, wrap=".wrap")
    return entries
