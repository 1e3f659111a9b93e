"""What the tests of the published classes share: golden models and small random ones."""

from __future__ import annotations

from pathlib import Path

import golden_files
import torch

from clvp_cli import ClvpConfig, ClvpDecoderConfig, ClvpEncoderConfig, ClvpModelForConditionalGeneration

START, STOP = 30, 31


def golden_model(name: str, directory: Path) -> ClvpModelForConditionalGeneration:
    """The golden model of that name, loaded as a user would."""
    return ClvpModelForConditionalGeneration.from_pretrained(golden_files.hf_directory(name, directory))


def small_config() -> ClvpConfig:
    """A model of 30 codes, with room for 30 code positions."""
    sizes = {"hidden_size": 32, "intermediate_size": 24, "projection_dim": 16, "num_hidden_layers": 1}
    encoder = {**sizes, "num_attention_heads": 1}
    return ClvpConfig.from_sub_model_configs(
        ClvpEncoderConfig(**encoder),
        ClvpEncoderConfig(**encoder, vocab_size=START),
        ClvpDecoderConfig(
            vocab_size=START + 2,
            bos_token_id=START,
            eos_token_id=STOP,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_mel_attn_blocks=1,
            max_position_embeddings=40,
            max_text_tokens=24,
            decoder_fixing_codes=[3, 5, 5, 8],
        ),
    )


def small_model(seed: int = 0) -> ClvpModelForConditionalGeneration:
    """A model whose layers all matter and whose candidates stop at different lengths."""
    torch.manual_seed(seed)
    model = ClvpModelForConditionalGeneration(small_config()).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 1.0 if "lm_head" in name or "embed" in name else 0.3)
        model.speech_decoder_model.lm_head.bias[STOP] = 3.0
    return model


def batch(rows: int = 3, length: int = 7, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (rows, length) without pads, log-mels (rows, 80, 9)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 250, (rows, length), generator=generator)
    return ids, torch.randn(rows, 80, 9, generator=generator)
