"""Table entries for the two blocks that several of Tortoise's models are built of.

Source: tortoise-tts 3.0.0, models/arch_util.py (AttentionBlock) and models/xtransformers.py (Encoder).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .adapter import Entries, Rule, same

if TYPE_CHECKING:
    from torch import Tensor

HEAD_WIDTH = 64  # x-transformers' fixed width of a head


def stack(side: str) -> str:
    """Where the layers of one x-transformers encoder lie."""
    return f"{side}_transformer.transformer.attn_layers"


def attention_block(source: str, norm: str, attention: str, heads: int) -> Entries:
    """An AttentionBlock, kernel-1 convolutions throughout → a GroupNorm and a self-attention of linear layers."""

    def by_head(packed: Tensor) -> list[Tensor]:
        """(H · 3 · d, …) → three of (D, …): rows are interleaved by head, q, k and v within each."""
        flat = packed.flatten(1) if packed.dim() > 1 else packed
        return [part.flatten(0, 1) for part in flat.view(heads, 3, -1, *flat.shape[1:]).unbind(1)]

    return {
        **same(f"{source}.norm", norm),
        **{
            f"{source}.qkv.{kind}": Rule(tuple(f"{attention}.{x}_proj.{kind}" for x in "qkv"), by_head)
            for kind in ("weight", "bias")
        },
        f"{source}.proj_out.weight": Rule((f"{attention}.out_proj.weight",), lambda kernel: (kernel.squeeze(-1),)),
        f"{source}.proj_out.bias": f"{attention}.out_proj.bias",
    }


def encoder_layer(layers: str, target: str, index: int, wrap: str = "") -> Entries:
    """Layer `index` of an x-transformers encoder: two numbered entries there → one layer of the published encoder.

    `wrap` is what lies between a number and its module: ".wrap" where Tortoise trained with checkpointing.
    """
    attention, feed_forward = f"{layers}.{2 * index}", f"{layers}.{2 * index + 1}"
    return {
        f"{attention}.0.0.g": f"{target}.input_rmsnorm.weight",
        **{f"{attention}.1{wrap}.to_{x}.weight": f"{target}.self_attn.{x}_proj.weight" for x in "qkv"},
        **same(f"{attention}.1{wrap}.to_out", f"{target}.self_attn.out_proj"),
        f"{feed_forward}.0.0.g": f"{target}.post_attention_rmsnorm.weight",
        **same(f"{feed_forward}.1{wrap}.net.0.proj", f"{target}.mlp.fc1.proj"),
        **same(f"{feed_forward}.1{wrap}.net.3", f"{target}.mlp.fc2"),
    }
