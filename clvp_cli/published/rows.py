"""Rows of unequal length: padding put to the right, candidates and prompts fixed at their own length.

T texts, S text ids, N candidates. Tensors only; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import ClvpConfig, ClvpDecoderConfig
from ..errors import CandidateError
from ..model.clvp import fix_speech_codes
from .generating import Row, stack_rows


def left_aligned(ids: Tensor, mask: Tensor | None, pad: int = 0) -> tuple[Tensor, Tensor | None]:
    """Ids (T, S) with the kept ones first and pads after them, and their mask; None where nothing is left out."""
    if mask is None or bool(mask.to(torch.bool).all()):
        return ids, None
    kept = mask.to(torch.bool)
    order = (~kept).to(torch.int8).argsort(dim=1, stable=True)
    return ids.masked_fill(~kept, pad).gather(1, order), kept.gather(1, order).to(ids.dtype)


def fixed(codes: Tensor, config: ClvpDecoderConfig) -> Tensor:
    """Codes (N, T) without the start column, fixed as the configuration says."""
    return fix_speech_codes(codes, config.eos_token_id, config.decoder_fixing_codes)


def scored_ids(
    rows: Sequence[Row], pad: int | str, config: ClvpConfig, device: torch.device
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows → speech_ids fixed at a common length, and what is scored: codes (N, T) with their mask.

    CandidateError where a code is none that the speech encoder knows.
    """
    vocab = config.speech_config.vocab_size
    for row in rows:
        known = row.codes[:-1] if row.stopped else row.codes
        if bool((known >= vocab).any()):
            raise CandidateError(f"a candidate holds code {int(known.max())}: the speech encoder knows {vocab} codes")
    codes, stop = [row.codes for row in rows], config.decoder_config.eos_token_id
    length = pad if isinstance(pad, int) else 0
    whole = fixed(stack_rows(codes, stop, length), config.decoder_config).to(device)
    lengths = torch.tensor([max(len(row), length) for row in codes], device=device).unsqueeze(1)
    if pad == "batch" or bool((lengths == lengths[0]).all()):
        return whole, whole, None
    each = [fixed(stack_rows([row], stop, length), config.decoder_config)[0] for row in codes]
    own = stack_rows(each, 0).to(device)
    return whole, own, (torch.arange(own.shape[1], device=device) < lengths).long()


def prompt_speech(codes: Tensor, text_mask: Tensor | None, config: ClvpDecoderConfig) -> tuple[Tensor, Tensor | None]:
    """The codes read off a prompt's positions (T, P), fixed; with a text mask (T, S) each at its own length."""
    if text_mask is None:
        return fixed(codes[:, 1:], config), None
    lengths = (text_mask.sum(1) + 3).expand(len(codes)).tolist()
    rows = [fixed(row[None, 1:length], config)[0] for row, length in zip(codes, lengths, strict=True)]
    return stack_rows(rows, 0), stack_rows([torch.ones_like(row) for row in rows], 0)
