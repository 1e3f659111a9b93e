"""The autoregressive decoder: a prompt and codes → hidden states and next-code logits (behaviour.md's section 6).

Tensors only: sampling, caches and stopping live in the generation room. B batch, S positions, D width, V codes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import ClvpDecoderConfig
from .layers import Attend, ClvpSelfAttention, Conv1D, MaskedAttend, Trace, activation

LayerAttend = Callable[[int], Attend]  # a layer's number → how its queries meet keys


class ClvpDecoderMLP(nn.Module):
    """c_fc, activation, c_proj; both weights stored (in, out)."""

    def __init__(self, config: ClvpDecoderConfig) -> None:
        super().__init__()
        inner = config.n_inner if config.n_inner is not None else 4 * config.hidden_size
        self.c_fc = Conv1D(config.hidden_size, inner)
        self.c_proj = Conv1D(inner, config.hidden_size)
        self.act = activation(config.activation_function)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.c_proj(self.act(self.c_fc(x))))
        return out


class ClvpDecoderLayer(nn.Module):
    """x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, config: ClvpDecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.attn = ClvpSelfAttention(
            config.hidden_size,
            config.num_attention_heads,
            bias=config.use_attention_bias,
            dropout=config.attention_dropout,
        )
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mlp = ClvpDecoderMLP(config)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        x = x + self.attn(self.input_layernorm(x), attend)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class DecoderStack(nn.Module):
    """Code embedding, position table, layers and `layer_norm`: the published ClvpDecoder's weights."""

    def __init__(self, config: ClvpDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.input_embeds_layer = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeds_layer = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.layers = nn.ModuleList([ClvpDecoderLayer(config) for _ in range(config.num_hidden_layers)])
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)

    def embed(self, codes: Tensor, positions: Tensor) -> Tensor:
        """Codes (B, S) at positions (B or 1, S) of the table → (B, S, D)."""
        out: Tensor = self.input_embeds_layer(codes) + self.position_embeds_layer(positions)
        return out

    def hidden(self, embeds: Tensor, attend: LayerAttend, trace: Trace | None = None) -> Tensor:
        """Embeddings (B, S, D) through all layers and `layer_norm` → (B, S, D)."""
        trace = trace or Trace()
        x = self.drop(embeds)
        for number, layer in enumerate(self.layers):
            trace.see(x)
            x = layer(x, attend(number))
        out: Tensor = self.layer_norm(x)
        trace.see(out)
        return out


class DecoderBody(nn.Module):
    """Holds the stack under the name that the published layout gives it."""

    stack_class: type[DecoderStack] = DecoderStack

    def __init__(self, config: ClvpDecoderConfig) -> None:
        super().__init__()
        self.decoder = self.stack_class(config)


class CodeDecoder(nn.Module):
    """The stack with its head: hidden states → `final_norm` → logits over codes (untied, with bias)."""

    body_class: type[DecoderBody] = DecoderBody

    def __init__(self, config: ClvpDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = self.body_class(config)
        self.final_norm = nn.LayerNorm(config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)

    @property
    def stack(self) -> DecoderStack:
        """The layers under `model.decoder`."""
        return self.model.decoder

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (…, D) → logits (…, V)."""
        out: Tensor = self.lm_head(self.final_norm(hidden))
        return out

    def teacher_forced(self, prefix: Tensor, codes: Tensor, trace: Trace | None = None) -> Tensor:
        """One uncached pass over a prefix and codes at the trained positions.

        prefix (B, P, D) takes no decoder positions; codes (B, T) begin with the start code, at positions 0, 1, 2, ….
        Returns the hidden states of the codes (B, T, D): the one at t predicts code t + 1.
        """
        positions = torch.arange(codes.shape[1], device=codes.device).unsqueeze(0)
        embeds = torch.cat((prefix, self.stack.embed(codes, positions).to(prefix.dtype)), dim=1)
        dropout = self.config.attention_dropout if self.training else 0.0
        attend = MaskedAttend(causal=True, dropout=dropout, trace=trace or Trace())
        return self.stack.hidden(embeds, lambda _: attend, trace)[:, prefix.shape[1] :]
