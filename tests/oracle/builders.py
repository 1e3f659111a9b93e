"""Small random reference models, the same ones for the golden files and for the live comparisons.

Every weight is drawn by a seeded generator and scaled so that each block changes its input visibly: with the
published initialisation a tiny model answers almost the same whatever one asks, and a wrong layer would pass.
Weights are rounded to float16 values (and kept as float32), so that a file of half the size holds them exactly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from . import environment

environment.prepare()

TEXT_VOCAB, TEXT_BOS = 64, 63
CODES = 80  # speech codes of a small published model; then the start and the stop code
FIXING = [13, 7, 7, 21]


def randomise(model: nn.Module, seed: int, gain: float = 1.0) -> nn.Module:
    """Draw every parameter (and a codebook's entries) anew; returns the model in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for name, tensor in module.named_parameters(recurse=False):
                tensor.copy_(_draw(module, name, tensor, generator, gain).half().float())
            buffers = dict(module.named_buffers(recurse=False))
            if "embed" in buffers:  # a codebook, and the average it is trained by
                buffers["embed"].copy_(torch.randn(buffers["embed"].shape, generator=generator).half().float())
                buffers["embed_avg"].copy_(buffers["embed"])
    return model.eval()


def _draw(module: nn.Module, name: str, tensor: torch.Tensor, generator: torch.Generator, gain: float) -> torch.Tensor:
    noise = torch.randn(tensor.shape, generator=generator)
    kind = type(module).__name__
    if tensor.ndim == 0:  # a logit scale or a temperature: keep the published start, moved a little
        return tensor + 0.3 * noise
    if tensor.ndim == 1:
        is_scale = "Norm" in kind and name in ("weight", "g")
        return 1.0 + 0.2 * noise if is_scale else 0.2 * noise
    if kind == "Embedding":
        return 0.7 * noise
    if kind == "EqualLinear":  # scaled by its own forward pass
        return noise / module.lr_mul
    fan_in = tensor.shape[0] if kind == "Conv1D" else tensor[0].numel()
    return gain * noise / fan_in**0.5


def clvp_config(
    text: dict[str, Any] | None = None, speech: dict[str, Any] | None = None, decoder: dict[str, Any] | None = None
) -> Any:
    """A small ClvpConfig of transformers; the arguments override single fields of the three parts."""
    from transformers import ClvpConfig

    encoder = {"hidden_size": 40, "intermediate_size": 48, "projection_dim": 24, "num_attention_heads": 1}
    encoder |= {"num_hidden_layers": 2, "vocab_size": TEXT_VOCAB, "bos_token_id": TEXT_BOS, "eos_token_id": 0}
    codes = {"vocab_size": CODES + 2, "bos_token_id": CODES, "eos_token_id": CODES + 1}
    codes |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_mel_attn_blocks": 2}
    codes |= {"max_position_embeddings": 48, "max_text_tokens": 24, "decoder_fixing_codes": FIXING}
    text_config = encoder | (text or {})
    return ClvpConfig(
        text_config=text_config,
        speech_config=encoder | {"vocab_size": CODES} | (speech or {}),
        decoder_config=codes | (decoder or {}),
        projection_dim=text_config["projection_dim"],
    )


def clvp_model(config: Any, seed: int, gain: float = 1.0) -> Any:
    """transformers' ClvpModelForConditionalGeneration with drawn weights and the generation settings it ships with."""
    from transformers import ClvpModelForConditionalGeneration, GenerationConfig

    model = ClvpModelForConditionalGeneration(config)
    randomise(model, seed, gain)
    with torch.no_grad():  # sharper logits: no argmax hangs on the last bit
        model.speech_decoder_model.lm_head.weight.mul_(3.0)
    start, stop = config.decoder_config.bos_token_id, config.decoder_config.eos_token_id
    settings = GenerationConfig(bos_token_id=start, eos_token_id=stop, pad_token_id=stop, do_sample=False)
    model.generation_config = settings
    model.speech_decoder_model.generation_config = settings
    return model


def unified_voice(
    seed: int, layers: int = 2, width: int = 32, heads: int = 4, codes: int = 256, kv_cache: bool = False
) -> Any:
    """Tortoise's UnifiedVoice (autoregressive.pth), ready for inference_speech, as its api sets it up."""
    from tortoise.models.autoregressive import UnifiedVoice

    model = UnifiedVoice(
        layers=layers, model_dim=width, heads=heads, max_text_tokens=30, max_mel_tokens=44, max_conditioning_inputs=2,
        number_text_tokens=255, start_text_token=255, number_mel_codes=codes + 2, start_mel_token=codes,
        stop_mel_token=codes + 1, checkpointing=False, train_solo_embeddings=False,
    )  # fmt: skip
    randomise(model, seed)
    with torch.no_grad():
        model.mel_head.weight.mul_(3.0)
    model.post_init_gpt2_config(kv_cache=kv_cache)
    return model.eval()


def unified_voice_state(model: Any) -> dict[str, torch.Tensor]:
    """The state as autoregressive.pth holds it: without the views of the inference model, with GPT-2's old masks."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("inference_model.")}
    state.pop("gpt.wte.weight")  # the inference model's alias of mel_embedding
    size = model.max_mel_tokens + model.max_text_tokens + 2
    for layer in range(model.layers):
        state[f"gpt.h.{layer}.attn.bias"] = torch.ones(size, size, dtype=torch.bool).tril()[None, None]
        state[f"gpt.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    return state


def tortoise_clvp(seed: int, heads: int = 1, text_depth: int = 1, speech_depth: int = 1, codes: int = 256) -> Any:
    """Tortoise's CLVP (clvp2.pth); its heads are always 64 wide."""
    from tortoise.models.clvp import CLVP

    width = 64 * heads
    model = CLVP(
        dim_text=width, dim_speech=width, dim_latent=width, num_text_tokens=256, text_enc_depth=text_depth,
        text_seq_len=350, text_heads=heads, num_speech_tokens=codes, speech_enc_depth=speech_depth,
        speech_heads=heads, speech_seq_len=430, use_xformers=True,
    )  # fmt: skip
    return randomise(model, seed)


def tortoise_cvvp(seed: int, heads: int = 1, depth: int = 1, codes: int = 256) -> Any:
    """Tortoise's CVVP (cvvp.pth), which compares codes with a voice."""
    from tortoise.models.cvvp import CVVP

    model = CVVP(
        model_dim=64 * heads, transformer_heads=heads, dropout=0, mel_codes=codes, conditioning_enc_depth=depth,
        cond_mask_percentage=0, speech_enc_depth=depth, speech_mask_percentage=0, latent_multiplier=1,
    )  # fmt: skip
    return randomise(model, seed)


def random_latent(seed: int, width: int = 32) -> Any:
    """Tortoise's RandomLatentConverter (rlg_auto.pth), which makes a voice of noise."""
    from tortoise.models.random_latent_generator import RandomLatentConverter

    return randomise(RandomLatentConverter(width), seed)


def discrete_vae(seed: int, width: int = 16, dim: int = 16, codes: int = 64) -> Any:
    """The autoencoder of dvae.pth, which turns log-mels into codes."""
    model = environment.discrete_vae()(
        channels=80, normalization=None, positional_dims=1, num_tokens=codes, codebook_dim=dim, hidden_dim=width,
        num_resnet_blocks=3, kernel_size=3, num_layers=2, use_transposed_convs=False,
    )  # fmt: skip
    randomise(model, seed)
    with torch.no_grad():  # a codebook of vectors that the encoder does make: drawn ones leave most codes unused
        mels = torch.randn(1, 80, 4 * codes, generator=torch.Generator().manual_seed(seed))
        model.codebook.embed.copy_(model.encoder(mels)[0].half().float())
        model.codebook.embed_avg.copy_(model.codebook.embed)
    return model
