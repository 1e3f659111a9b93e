"""Tortoise's cvvp.pth: the table to this project's Cvvp, and the sizes it shows.

Source: tortoise-tts 3.0.0, models/cvvp.py. Its layers are clvp2.pth's without the `.wrap`.
"""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from .adapter import Adapted, Entries, MainSizes, Table, count, same, shape_of
from .tensors import TensorStore
from .tortoise_blocks import HEAD_WIDTH, attention_block, encoder_layer, stack

SIGNATURE = ("cond_emb.0.weight", "to_conditioning_latent.weight", "speech_emb.emb.weight")
TOWERS = {"conditioning": "voice", "speech": "speech"}  # Tortoise's name → ours


def sizes(store: TensorStore) -> dict[str, Any]:
    """What the shapes show, as the content of a CvvpConfig."""
    vocab, width = shape_of(store, "speech_emb.emb.weight", 2)
    layers = {ours: count(store.infos, f"{stack(theirs)}.layers.") // 2 for theirs, ours in TOWERS.items()}
    return {
        "model_type": "cvvp",
        "hidden_size": width,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "intermediate_size": shape_of(store, f"{stack('speech')}.layers.1.1.net.3.weight", 2)[1],
        "num_voice_layers": layers["voice"],
        "num_speech_layers": layers["speech"],
        "vocab_size": vocab,
        "feature_size": shape_of(store, "cond_emb.0.weight", 3)[1],
    }


def adapt(store: TensorStore, main: MainSizes) -> tuple[dict[str, Any], Adapted]:
    """Read the file through the table; its codes must be those that the model speaks."""
    shown = sizes(store)
    if main.codes not in (None, shown["vocab_size"]):
        raise CheckpointError(f"{store.files[0]}: {shown['vocab_size']} codes, the model speaks {main.codes}")
    return shown, Adapted(
        store, table(shown["num_voice_layers"], shown["num_speech_layers"], shown["num_attention_heads"])
    )


def table(voice_layers: int, speech_layers: int, heads: int) -> Table:
    """Name → name in Cvvp."""
    entries: Entries = {
        "temperature": "logit_scale",
        "speech_emb.emb.weight": "speech_embedding.weight",
        **same("cond_emb.0", "voice_convs.0"),
        **same("cond_emb.1", "voice_convs.1"),
    }
    for (theirs, ours), layers in zip(TOWERS.items(), (voice_layers, speech_layers), strict=True):
        target, mixer = f"{ours}_tower", f"{theirs}_transformer.pre_combiner"
        entries |= {
            f"to_{theirs}_latent.weight": f"{target}.projection.weight",
            f"{stack(theirs)}.rotary_pos_emb.inv_freq": None,  # a function of the size
            **same(f"{theirs}_transformer.transformer.norm", f"{target}.final_layer_norm"),
            **same(f"{mixer}.0", f"{target}.mix_in"),
            **attention_block(f"{mixer}.1", f"{target}.mix_norm", f"{target}.mix_attn", heads),
            **same(f"{mixer}.2", f"{target}.mix_out"),
        }
        for index in range(layers):
            entries |= encoder_layer(f"{stack(theirs)}.layers", f"{target}.layers.{index}", index)
    return entries
