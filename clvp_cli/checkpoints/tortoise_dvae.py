"""Tortoise's dvae.pth: the table to this project's codec (log-mel ↔ codes), and the sizes it shows.

Source: tortoise-tts's autoencoder (DiscreteVAE of 80 channels, residual blocks, no transposed convolutions).
"""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from .adapter import Adapted, Entries, MainSizes, Table, count, same, shape_of
from .tensors import TensorStore

SIGNATURE = ("codebook.embed", "encoder.0.0.weight")
SPEECH_CODES = 8192  # of Tortoise
XTTS_CODES = 1024  # the autoencoder of XTTS-v2 has the same names and another codebook
CONVOLUTIONS = (0, 2, 4)  # of a residual block, activations between them


def sizes(store: TensorStore) -> dict[str, Any]:
    """What the shapes show, as the content of a codec's config.json."""
    dim, codes = shape_of(store, "codebook.embed", 2)
    hidden, channels, kernel = shape_of(store, "encoder.0.0.weight", 3)
    halvings, blocks = _layers(store)
    return {
        "model_type": "codec",
        "num_codes": codes,
        "codebook_dim": dim,
        "hidden_size": hidden,
        "feature_size": channels,
        "kernel_size": kernel,
        "num_layers": halvings,
        "num_residual_blocks": blocks,
    }


def _layers(store: TensorStore) -> tuple[int, int]:
    """How many halving convolutions and residual blocks the encoder has."""
    entries = count(store.infos, "encoder.")
    halvings = sum(f"encoder.{index}.0.weight" in store.infos for index in range(entries))
    return halvings, sum(f"encoder.{index}.net.0.weight" in store.infos for index in range(entries))


def adapt(store: TensorStore, main: MainSizes) -> tuple[dict[str, Any], Adapted]:
    """Read the file through the table; its codes must be those that the model speaks."""
    shown = sizes(store)
    codes = shown["num_codes"]
    if main.codes not in (None, codes) or codes == XTTS_CODES != main.codes:
        whose = "XTTS-v2's codec" if codes == XTTS_CODES else "another model's codec"
        raise CheckpointError(
            f"{store.files[0]}: {codes} codes, the model speaks {main.codes or SPEECH_CODES}: {whose}",
            "use Tortoise's own dvae.pth",
        )
    return shown, Adapted(store, table(shown["num_layers"], shown["num_residual_blocks"]))


def table(halvings: int, blocks: int) -> Table:
    """Name → name in the codec."""
    last = halvings + blocks
    entries: Entries = {
        "codebook.embed": "codebook.embed",
        "codebook.embed_avg": None,  # running means of the codebook's training
        "codebook.cluster_size": None,
        **{f"discrete_loss.accumulator{suffix}": None for suffix in ("", "_index", "_filled")},  # of its loss
        **same(f"encoder.{last}", f"encoder.{last}"),
        **same("decoder.0", "decoder.0"),
        **same(f"decoder.{last + 1}", f"decoder.{last + 1}"),
    }
    for index in range(halvings):
        upsampling = f"decoder.{1 + blocks + index}.0.conv"
        entries |= {**same(f"encoder.{index}.0", f"encoder.{index}.0"), **same(upsampling, upsampling)}
    for index in range(blocks):
        for convolution in CONVOLUTIONS:
            encoding, decoding = (
                f"encoder.{halvings + index}.net.{convolution}",
                f"decoder.{1 + index}.net.{convolution}",
            )
            entries |= {**same(encoding, encoding), **same(decoding, decoding)}
    return entries
