"""Tortoise's autoregressive.pth: the table to the published conditioning encoder and decoder, and the sizes it shows.

Source: tortoise-tts 3.0.0, models/autoregressive.py (UnifiedVoice) and arch_util.py (AttentionBlock); the published
conversion script gives the same tensors at the published size.
"""

from __future__ import annotations

from typing import Any

from .adapter import Entries, Rule, Table, count, same, shape_of
from .tensors import TensorStore
from .tortoise_blocks import attention_block

SIGNATURE = ("mel_embedding.weight", "gpt.ln_f.weight")
HEAD_WIDTH = 64  # of the published size; a config.json beside the file overrides it
TEXT_BEGIN = 255  # Tortoise's start_text_token
CONDITIONING = "conditioning_encoder"
STACK = "speech_decoder_model.model.decoder"


def sizes(store: TensorStore) -> dict[str, Any]:
    """What the shapes show, as the content of a config.json: the decoder's sizes and the text vocabulary."""
    vocab, width = shape_of(store, "mel_embedding.weight", 2)
    inner = shape_of(store, "gpt.h.0.mlp.c_fc.weight", 2)[1]
    rows = shape_of(store, "text_embedding.weight", 2)[0]
    decoder = {
        "vocab_size": vocab,
        "bos_token_id": vocab - 2,
        "eos_token_id": vocab - 1,
        "hidden_size": width,
        "n_inner": None if inner == 4 * width else inner,
        "num_hidden_layers": count(store.infos, "gpt.h."),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": shape_of(store, "mel_pos_embedding.emb.weight", 2)[0],
        "max_text_tokens": shape_of(store, "text_pos_embedding.emb.weight", 2)[0],
        "num_mel_attn_blocks": count(store.infos, f"{CONDITIONING}.attn."),
        "feature_size": shape_of(store, f"{CONDITIONING}.init.weight", 3)[1],
    }
    return {"decoder_config": decoder, "text_config": {"vocab_size": rows, "bos_token_id": min(TEXT_BEGIN, rows - 1)}}


def table(layers: int, blocks: int, heads: int) -> Table:
    """Name → published name, for so many layers, conditioning blocks and conditioning heads."""
    entries: Entries = {
        "text_embedding.weight": f"{CONDITIONING}.text_token_embedding.weight",
        "text_pos_embedding.emb.weight": f"{CONDITIONING}.text_position_embedding.weight",
        "mel_embedding.weight": f"{STACK}.input_embeds_layer.weight",
        "mel_pos_embedding.emb.weight": f"{STACK}.position_embeds_layer.weight",
        **same(f"{CONDITIONING}.init", f"{CONDITIONING}.mel_conv"),
        **same("gpt.ln_f", f"{STACK}.layer_norm"),
        **same("final_norm", "speech_decoder_model.final_norm"),
        **same("mel_head", "speech_decoder_model.lm_head"),
        "text_head.weight": None,  # predicts text, which nothing here asks for
        "text_head.bias": None,
        "gpt.wte.weight": None,  # an alias of mel_embedding that Tortoise ties on for inference
    }
    for index in range(blocks):
        block = f"{CONDITIONING}.attn.{index}"
        norm, attention = f"{CONDITIONING}.group_norms.{index}", f"{CONDITIONING}.mel_attn_blocks.{index}"
        entries |= attention_block(block, norm, attention, heads)
    for index in range(layers):
        entries |= _layer(index)
    return entries


def _layer(index: int) -> Entries:
    source, target = f"gpt.h.{index}", f"{STACK}.layers.{index}"
    return {
        **same(f"{source}.ln_1", f"{target}.input_layernorm"),
        **same(f"{source}.ln_2", f"{target}.post_attention_layernorm"),
        # GPT-2's Conv1D stores (in, out); q, k, v side by side, not by head
        f"{source}.attn.c_attn.weight": Rule(
            tuple(f"{target}.attn.{x}_proj.weight" for x in "qkv"), lambda packed: packed.t().chunk(3)
        ),
        f"{source}.attn.c_attn.bias": Rule(
            tuple(f"{target}.attn.{x}_proj.bias" for x in "qkv"), lambda packed: packed.chunk(3)
        ),
        f"{source}.attn.c_proj.weight": Rule((f"{target}.attn.out_proj.weight",), lambda weight: (weight.t(),)),
        f"{source}.attn.c_proj.bias": f"{target}.attn.out_proj.bias",
        **same(f"{source}.mlp.c_fc", f"{target}.mlp.c_fc"),  # these stay (in, out)
        **same(f"{source}.mlp.c_proj", f"{target}.mlp.c_proj"),
        f"{source}.attn.bias": None,  # the causal mask, which older libraries saved
        f"{source}.attn.masked_bias": None,
    }
