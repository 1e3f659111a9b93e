"""Small models on disk for the checkpoint tests: the published format, and Tortoise's made from the same weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from clvp_cli.checkpoints.layout import derived_tables, expected_shapes
from clvp_cli.config import ClvpConfig, ClvpDecoderConfig, ClvpEncoderConfig

WIDTH = 64  # one of Tortoise's fixed head widths: its encoders know no smaller one
LAYERS = {"text": 2, "speech": 1}


def small_config() -> ClvpConfig:
    """The smallest sizes that Tortoise's formats can hold too; fewer codes than the real 8192, to be quick."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 96, "projection_dim": WIDTH, "num_attention_heads": 1}
    return ClvpConfig(
        text_config=ClvpEncoderConfig(**sizes, num_hidden_layers=LAYERS["text"]),
        speech_config=ClvpEncoderConfig(**sizes, num_hidden_layers=LAYERS["speech"], vocab_size=30),
        decoder_config=ClvpDecoderConfig(
            hidden_size=WIDTH,
            vocab_size=32,
            bos_token_id=30,
            eos_token_id=31,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_mel_attn_blocks=2,
            max_position_embeddings=20,
            max_text_tokens=24,
        ),
        projection_dim=WIDTH,
    )


def published_state(config: ClvpConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random weights in the published layout, none of them zero, so that a swapped tensor shows."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in expected_shapes(config).items()}


def tortoise_autoregressive(state: dict[str, Tensor], config: ClvpConfig) -> dict[str, Tensor]:
    """The same weights under the names and in the shapes of autoregressive.pth, with the leftovers real files carry."""
    decoder, conditioning = "speech_decoder_model.model.decoder", "conditioning_encoder"
    made = {
        "text_embedding.weight": state[f"{conditioning}.text_token_embedding.weight"],
        "text_pos_embedding.emb.weight": state[f"{conditioning}.text_position_embedding.weight"],
        "mel_embedding.weight": state[f"{decoder}.input_embeds_layer.weight"],
        "mel_pos_embedding.emb.weight": state[f"{decoder}.position_embeds_layer.weight"],
        "text_head.weight": torch.ones(config.text_config.vocab_size, WIDTH),
        "text_head.bias": torch.ones(config.text_config.vocab_size),
    }
    heads = config.decoder_config.num_attention_heads
    for kind in ("weight", "bias"):
        made[f"conditioning_encoder.init.{kind}"] = state[f"{conditioning}.mel_conv.{kind}"]
        made[f"gpt.ln_f.{kind}"] = state[f"{decoder}.layer_norm.{kind}"]
        made[f"final_norm.{kind}"] = state[f"speech_decoder_model.final_norm.{kind}"]
        made[f"mel_head.{kind}"] = state[f"speech_decoder_model.lm_head.{kind}"]
        for i in range(config.decoder_config.num_mel_attn_blocks):
            block = f"{conditioning}.mel_attn_blocks.{i}"
            made[f"conditioning_encoder.attn.{i}.norm.{kind}"] = state[f"{conditioning}.group_norms.{i}.{kind}"]
            rows = [state[f"{block}.{x}_proj.{kind}"].chunk(heads) for x in "qkv"]
            packed = torch.cat([rows[x][head] for head in range(heads) for x in range(3)])
            out = state[f"{block}.out_proj.{kind}"]
            kernel = kind == "weight"
            made[f"conditioning_encoder.attn.{i}.qkv.{kind}"] = packed[:, :, None] if kernel else packed
            made[f"conditioning_encoder.attn.{i}.proj_out.{kind}"] = out[:, :, None].clone() if kernel else out
        for i in range(config.decoder_config.num_hidden_layers):
            layer = f"{decoder}.layers.{i}"
            made[f"gpt.h.{i}.ln_1.{kind}"] = state[f"{layer}.input_layernorm.{kind}"]
            made[f"gpt.h.{i}.ln_2.{kind}"] = state[f"{layer}.post_attention_layernorm.{kind}"]
            packed = torch.cat([state[f"{layer}.attn.{x}_proj.{kind}"] for x in "qkv"])
            out = state[f"{layer}.attn.out_proj.{kind}"]
            made[f"gpt.h.{i}.attn.c_attn.{kind}"] = packed.t().contiguous() if kind == "weight" else packed
            made[f"gpt.h.{i}.attn.c_proj.{kind}"] = out.t().contiguous() if kind == "weight" else out
            made[f"gpt.h.{i}.mlp.c_fc.{kind}"] = state[f"{layer}.mlp.c_fc.{kind}"]
            made[f"gpt.h.{i}.mlp.c_proj.{kind}"] = state[f"{layer}.mlp.c_proj.{kind}"]
    for i in range(config.decoder_config.num_hidden_layers):
        made[f"gpt.h.{i}.attn.bias"] = torch.ones(1, 1, 4, 4, dtype=torch.bool)
        made[f"gpt.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    return made


def tortoise_clvp(state: dict[str, Tensor], config: ClvpConfig) -> dict[str, Tensor]:
    """The same weights under the names of clvp2.pth."""
    made = {"temperature": state["logit_scale"]}
    for side, layers in LAYERS.items():
        published, stack = f"{side}_encoder_model", f"{side}_transformer.transformer.attn_layers"
        made[f"{side}_emb.weight"] = state[f"{published}.token_embedding.weight"]
        made[f"to_{side}_latent.weight"] = state[f"{published}.projection.weight"]
        made[f"{stack}.rotary_pos_emb.inv_freq"] = derived_tables(config)[f"{published}.rotary_pos_emb.inv_freq"]
        for kind in ("weight", "bias"):
            made[f"{side}_transformer.transformer.norm.{kind}"] = state[f"{published}.final_layer_norm.{kind}"]
        for i in range(layers):
            layer, first, second = f"{published}.layers.{i}", f"{stack}.layers.{2 * i}", f"{stack}.layers.{2 * i + 1}"
            made[f"{first}.0.0.g"] = state[f"{layer}.input_rmsnorm.weight"]
            made[f"{second}.0.0.g"] = state[f"{layer}.post_attention_rmsnorm.weight"]
            for x in "qkv":
                made[f"{first}.1.wrap.to_{x}.weight"] = state[f"{layer}.self_attn.{x}_proj.weight"]
            for kind in ("weight", "bias"):
                made[f"{first}.1.wrap.to_out.{kind}"] = state[f"{layer}.self_attn.out_proj.{kind}"]
                made[f"{second}.1.wrap.net.0.proj.{kind}"] = state[f"{layer}.mlp.fc1.proj.{kind}"]
                made[f"{second}.1.wrap.net.3.{kind}"] = state[f"{layer}.mlp.fc2.{kind}"]
    return made


def write_tortoise(directory: Path, config: ClvpConfig, state: dict[str, Tensor]) -> Path:
    """A directory of Tortoise's two files; its config.json says the heads, which a small model's width does not."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(tortoise_autoregressive(state, config), directory / "autoregressive.pth")
    torch.save(tortoise_clvp(state, config), directory / "clvp2.pth")
    (directory / "config.json").write_text('{"decoder_config": {"num_attention_heads": 4}}')
    return directory
