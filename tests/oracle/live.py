"""What the live comparisons share: the seed of the run, random configurations, and models exchanged through files."""

from __future__ import annotations

import os
import random
import secrets
from pathlib import Path
from typing import Any

import pytest
import torch

from . import builders

SEED = int(os.environ.get("CLVP_ORACLE_SEED") or secrets.randbelow(10**6))
# float32 sums in another order, through up to three layers of weights scaled to do something
CLOSE = {"rtol": 2e-4, "atol": 2e-4}


def draws(count: int) -> pytest.MarkDecorator:
    """Run a test `count` times, with seeds that its name shows; CLVP_ORACLE_SEED repeats the first of them."""
    seeds = [SEED + number for number in range(count)]
    return pytest.mark.parametrize("seed", seeds, ids=[f"seed={seed}" for seed in seeds])


def assert_close(ours: torch.Tensor, reference: torch.Tensor, **tolerance: float) -> None:
    """Both tensors say the same, within what the order of float32 sums explains."""
    torch.testing.assert_close(ours.detach(), reference.detach(), **(CLOSE | tolerance))


def random_config(seed: int) -> Any:
    """A small ClvpConfig of transformers in which depth, width, heads, vocabulary, biases and sizes all vary."""
    rng = random.Random(seed)
    projection = rng.choice([24, 40, 64, 100])
    text, speech = (_encoder(rng, projection) for _ in range(2))
    heads, head = rng.choice([1, 2, 4]), rng.choice([8, 16, 24])
    codes = rng.randrange(40, 90)
    decoder = {
        "vocab_size": codes + 2,
        "bos_token_id": codes,
        "eos_token_id": codes + 1,
        "hidden_size": heads * head if heads * head >= 16 else 16,
        "num_attention_heads": heads,
        "n_inner": rng.choice([None, 40, 72]),
        "num_hidden_layers": rng.randrange(1, 4),
        "num_mel_attn_blocks": rng.randrange(1, 4),
        "use_attention_bias": rng.random() < 0.7,
        "layer_norm_epsilon": rng.choice([1e-5, 1e-4]),
        "decoder_fixing_codes": [rng.randrange(codes) for _ in range(4)],
    }
    return builders.clvp_config(text, speech | {"vocab_size": codes}, decoder)


def _encoder(rng: random.Random, projection: int) -> dict[str, Any]:
    """Sizes of one encoder, such that a head has room for the dimensions that turn."""
    while True:
        heads, head = rng.choice([1, 2, 3]), rng.choice([32, 36, 48, 64])
        turning = max(projection // (2 * heads), 32)
        if turning <= head and turning % 2 == 0:
            break
    return {
        "hidden_size": heads * head,
        "num_attention_heads": heads,
        "projection_dim": projection,
        "intermediate_size": rng.choice([24, 48, 100]),
        "num_hidden_layers": rng.randrange(1, 4),
        "use_attention_bias": rng.random() < 0.5,
        "summary_type": rng.choice(["mean", "mean", "last", "first", "cls_index"]),
        "layer_norm_eps": rng.choice([1e-5, 1e-3]),
    }


def random_model(seed: int) -> Any:
    """A reference model of a random configuration. Its start code is never the most probable: it has no vector."""
    model = builders.clvp_model(random_config(seed), seed)
    with torch.no_grad():
        model.speech_decoder_model.lm_head.bias[model.config.decoder_config.bos_token_id] = -60.0
        model.speech_decoder_model.lm_head.bias[model.config.decoder_config.eos_token_id] += 2.0
    return model


def exchange(model: Any, directory: Path, **options: Any) -> Any:
    """Ours, loaded from what transformers' save_pretrained writes."""
    import clvp_cli

    model.save_pretrained(directory, **options)
    return clvp_cli.ClvpModelForConditionalGeneration.from_pretrained(directory)


def batch(model: Any, seed: int, rows: int = 2, length: int = 7, frames: int = 11) -> dict[str, torch.Tensor]:
    """input_ids (rows, length) without a pad, and input_features (rows, 80, frames)."""
    generator = torch.Generator().manual_seed(seed + 1)
    return {
        "input_ids": torch.randint(1, model.config.text_config.bos_token_id, (rows, length), generator=generator),
        "input_features": torch.randn(rows, 80, frames, generator=generator),
    }


def random_codes(model: Any, seed: int, rows: int = 3, length: int = 9) -> torch.Tensor:
    """Codes (rows, length) that the speech encoder knows."""
    generator = torch.Generator().manual_seed(seed + 2)
    return torch.randint(0, model.config.speech_config.vocab_size, (rows, length), generator=generator)
