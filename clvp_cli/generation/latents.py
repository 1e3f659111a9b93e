"""The winner's latents: what Tortoise's diffusion decoder reads. Codes and a prefix in, vectors out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..model.decoder import CodeDecoder

CALM = 8  # silences in a row that are left in, so that speech can end gently


@torch.inference_mode()
def winner_latents(decoder: CodeDecoder, prefix: Tensor, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Run the decoder once more over fixed codes (T,) behind a prefix (P, D) and keep final_norm's output.

    Returns (T', D) float32: the vector that predicted each code, T' = T unless a ninth silence in a row (the first
    fixing code) comes earlier. Source: tortoise/api.py, return_latent.
    """
    table = decoder.config.max_position_embeddings
    if len(codes) > table:
        raise InputError(f"{len(codes)} codes: the decoder has positions for {table}", "score with a shorter padding")
    rows = torch.from_numpy(np.append(decoder.config.bos_token_id, codes[:-1]))[None].to(prefix.device)
    latents: NDArray[np.float32] = (
        decoder.final_norm(decoder.teacher_forced(prefix[None], rows))[0].float().cpu().numpy()
    )
    return latents[: calm_end(codes, decoder.config.decoder_fixing_codes[0])]


def calm_end(codes: NDArray[np.int64], silence: int) -> int:
    """Where the ninth silence in a row stands, or the length of `codes`."""
    run = 0
    for place, code in enumerate(codes.tolist()):
        run = run + 1 if code == silence else 0
        if run > CALM:
            return place
    return len(codes)
