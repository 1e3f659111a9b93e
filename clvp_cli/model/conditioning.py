"""The conditioning encoder: a voice's log-mel and a text's ids → the decoder's prefix (behaviour.md's section 5).

Tensors only. B batch, F mel frames, S text ids, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import ClvpConfig
from ..errors import ConfigError, InputError
from .layers import ClvpSelfAttention, MaskedAttend


def group_norm_groups(channels: int) -> int:
    """Groups of the GroupNorm for that width: 8, 16 or 32, halved until it divides; ConfigError below 3."""
    groups = 8 if channels <= 16 else 16 if channels <= 64 else 32
    while channels % groups:
        groups //= 2
    if groups <= 2:
        raise ConfigError(f"hidden_size {channels} leaves {groups} groups for its GroupNorm", "use a multiple of 8")
    return groups


def insert_stop(ids: Tensor, stop: int = 0, pad: int = 0) -> Tensor:
    """Insert `stop` before the first pad of each row, or at its end. (B, S) → (B, S + 1)."""
    is_pad = ids == pad
    first = torch.where(is_pad.any(1), is_pad.int().argmax(1), torch.full_like(ids[:, 0], ids.shape[1]))
    steps = torch.arange(ids.shape[1] + 1, device=ids.device)
    longer = torch.nn.functional.pad(ids, (1, 0))  # shifted right: the part behind the stop
    front = torch.nn.functional.pad(ids, (0, 1))
    place = first.unsqueeze(1)
    return torch.where(steps < place, front, torch.where(steps == place, torch.full_like(front, stop), longer))


class ConditioningEncoder(nn.Module):
    """Prefix = [voice vector | embedded text]."""

    def __init__(self, config: ClvpConfig) -> None:
        super().__init__()
        self.text_config, self.decoder_config = config.text_config, config.decoder_config
        width = config.decoder_config.hidden_size
        blocks = config.decoder_config.num_mel_attn_blocks
        rows = config.decoder_config.extra.get("text_vocab_size", config.text_config.vocab_size)  # fine-tunes differ
        self.text_token_embedding = nn.Embedding(rows, width)
        self.text_position_embedding = nn.Embedding(config.decoder_config.max_text_tokens, width)
        self.mel_conv = nn.Conv1d(config.decoder_config.feature_size, width, kernel_size=1)
        groups = group_norm_groups(width)
        self.group_norms = nn.ModuleList([nn.GroupNorm(groups, width, eps=1e-5) for _ in range(blocks)])
        self.mel_attn_blocks = nn.ModuleList(
            [
                ClvpSelfAttention(
                    width,
                    config.decoder_config.num_attention_heads,
                    bias=config.decoder_config.use_attention_bias,
                    dropout=config.decoder_config.attention_dropout,
                )
                for _ in range(blocks)
            ]
        )

    def voice(self, mels: Tensor) -> Tensor:
        """Log-mels (B, 80, F) → voice vectors (B, D): frame 0 after the attention blocks, which look both ways."""
        dropout = self.decoder_config.attention_dropout if self.training else 0.0
        # A product: oneDNN's convolution of width 1 rounds otherwise with another number of threads.
        weight, bias = self.mel_conv.weight.squeeze(-1), self.mel_conv.bias
        x = nn.functional.linear(mels.transpose(1, 2), weight, bias).transpose(1, 2)  # (B, D, F)
        for norm, attention in zip(self.group_norms, self.mel_attn_blocks, strict=True):
            x = x + attention(norm(x).transpose(1, 2), MaskedAttend(dropout=dropout)).transpose(1, 2)
        out: Tensor = x[:, :, 0]
        return out

    def text(
        self, ids: Tensor | None, attention_mask: Tensor | None = None, embeds: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Ids (B, S), or their token embeddings (B, S, D) → (begin, ids, stop) embedded (B, S + 2, D), mask (B, S + 2).

        The stop goes before the first pad. Embeddings carry no pads to look for: there it goes where the mask ends.
        """
        begin, stop = self.text_config.bos_token_id, self.text_config.eos_token_id
        if ids is not None:
            mask = torch.ones_like(ids) if attention_mask is None else attention_mask.to(ids.dtype)
            tokens = self.text_token_embedding(insert_stop(nn.functional.pad(ids, (1, 0), value=begin), stop))
        elif embeds is not None:
            mask = attention_mask if attention_mask is not None else embeds.new_ones(embeds.shape[:2], dtype=torch.long)
            tokens = self._frame(embeds, mask.sum(1), begin, stop)
        else:
            raise InputError("the conditioning encoder needs input_ids or inputs_embeds")
        mask = nn.functional.pad(mask, (2, 0), value=1)
        positions = mask.cumsum(-1) - 1
        table = self.text_position_embedding.num_embeddings
        if int(positions.max()) >= table:
            count = mask.shape[1] - 2
            raise InputError(f"text of {count} ids: the position table holds {table}", "split the text into sentences")
        return tokens + self.text_position_embedding(positions), mask

    def _frame(self, embeds: Tensor, lengths: Tensor, begin: int, stop: int) -> Tensor:
        """Put the begin embedding before each row and the stop embedding after its `lengths` (B,) kept ones."""
        ends = self.text_token_embedding(torch.tensor([begin, stop], device=embeds.device)).to(embeds.dtype)
        rows = [
            torch.cat((ends[:1], row[:kept], ends[1:], row[kept:]))
            for row, kept in zip(embeds, lengths.tolist(), strict=True)
        ]
        return torch.stack(rows)

    def forward(
        self,
        input_features: Tensor,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Log-mels (B, 80, F) and ids (B, S) → prefix (B, S + 3, D). One text × N voices and N × 1 repeat."""
        if input_ids is not None and inputs_embeds is not None:
            raise InputError("input_ids and inputs_embeds exclude each other")
        text, _ = self.text(input_ids, attention_mask, inputs_embeds)
        return join_prefix(self.voice(input_features), text)


def join_prefix(voices: Tensor, text: Tensor) -> Tensor:
    """Voice vectors (B, D) and embedded texts (B, S, D) → (B, 1 + S, D); one of either is repeated."""
    rows = max(len(voices), len(text))
    if len(voices) not in (1, rows) or len(text) not in (1, rows):
        raise InputError(f"{len(text)} texts and {len(voices)} voices: equal numbers are needed, or one of either")
    return torch.cat((voices.unsqueeze(1).expand(rows, -1, -1), text.expand(rows, -1, -1)), dim=1)
