"""The whole network: conditioning encoder, decoder, text and speech encoder, and the similarity between them.

Tensors only. State names are the published (HF) layout, less `rotary_pos_emb.inv_freq`, which is a function of the
configuration. B batch, T codes, E projection width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ClvpConfig
from .conditioning import ConditioningEncoder
from .decoder import CodeDecoder
from .encoder import Encoder
from .initialise import initialise


class ClvpNetwork(nn.Module):
    """All parts together, in the published layout. Build it on the meta device to load weights into it."""

    conditioning_class: type[ConditioningEncoder] = ConditioningEncoder
    decoder_class: type[CodeDecoder] = CodeDecoder
    encoder_class: type[Encoder] = Encoder

    def __init__(self, config: ClvpConfig) -> None:
        super().__init__()
        self.config = config
        self.conditioning_encoder = self.conditioning_class(config)
        self.speech_decoder_model = self.decoder_class(config.decoder_config)
        self.text_encoder_model = self.encoder_class(config.text_config)
        self.speech_encoder_model = self.encoder_class(config.speech_config)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        initialise(self, config)


def fix_speech_codes(codes: Tensor, stop: int, fixing: Sequence[int]) -> Tensor:
    """Make codes (B, T) what the speech encoder was trained on; the start column is already gone.

    In a row with a stop code everything from the first stop on becomes fixing[0] (silence) and the last three columns
    become fixing[1:], over real codes where the stop is that late. A row without a stop stays as it is. Rows shorter
    than three take the last of these codes.

    Source: Tortoise's fix_autoregressive_output and the published fix_speech_decoder_output.
    """
    is_stop = codes == stop
    has_stop = is_stop.any(1, keepdim=True)
    fixed = codes.masked_fill(is_stop.cumsum(1) > 0, fixing[0])
    width = min(3, codes.shape[1])
    tail = torch.tensor(list(fixing[1:])[3 - width :], dtype=codes.dtype, device=codes.device)
    fixed[:, codes.shape[1] - width :] = tail
    return torch.where(has_stop, fixed, codes)


def unit(embeds: Tensor) -> Tensor:
    """Rows of length one."""
    return F.normalize(embeds.float(), dim=-1)


def contrastive_loss(similarity: Tensor) -> Tensor:
    """Mean of the two cross-entropies over a square similarity matrix (B, B) whose diagonal holds the pairs."""
    target = torch.arange(len(similarity), device=similarity.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.t(), target)) / 2
