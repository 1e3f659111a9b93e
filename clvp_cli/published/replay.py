"""Rows as the published output of generate: sequences, and what the decoder was in while it drew them.

The engine keeps no states. They come of one more pass a row, uncached, at the positions that the engine used.
N rows, T codes, P prefix positions, S = P + T positions fed, D width, V codes, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..generation.engine import code_position
from ..model.decoder import CodeDecoder
from ..model.layers import MaskedAttend, Trace
from .generating import Row, stack_rows
from .generation_config import GenerationConfig
from .outputs import GenerateDecoderOnlyOutput


def collect(
    decoder: CodeDecoder, prefixes: Sequence[Tensor], rows: Sequence[Row], options: GenerationConfig
) -> GenerateDecoderOnlyOutput:
    """Rows as the published output, with what of hidden states, attentions and logits is asked for.

    These have one entry a code; the first covers the whole prompt. Rows that ended early go on with stop codes, as
    published; prompts shorter than the longest have zeros before them.
    """
    stop, device = decoder.config.eos_token_id, decoder.lm_head.weight.device
    fill = stop if options.pad_token_id is None else options.pad_token_id
    sequences = F.pad(stack_rows([row.codes for row in rows], fill), (1, 0), value=decoder.config.bos_token_id)
    output = GenerateDecoderOnlyOutput(
        sequences=sequences.to(device), stopped=torch.tensor([row.stopped for row in rows], device=device)
    )
    if options.num_beams > 1:
        scores = [row.logprob / len(row.codes) ** options.length_penalty for row in rows]
        output.sequences_scores = torch.tensor(scores, device=device)
    if not (options.output_hidden_states or options.output_attentions or options.output_logits):
        return output
    codes = stack_rows([row.codes for row in rows], stop).to(device)
    passes = [_replay(decoder, prefixes[row.prompt], codes[i], options) for i, row in enumerate(rows)]
    steps, layers, longest = range(codes.shape[1]), len(decoder.stack.layers), max(each.prompt for each in passes)
    if options.output_logits:
        output.logits = tuple(torch.stack([each.logits for each in passes], dim=1))
    if options.output_hidden_states:
        output.hidden_states = tuple(
            tuple(torch.stack([each.state(step, layer, longest) for each in passes]) for layer in range(layers + 1))
            for step in steps
        )
    if options.output_attentions:
        output.attentions = tuple(
            tuple(torch.stack([each.attention(step, layer, longest) for each in passes]) for layer in range(layers))
            for step in steps
        )
    return output


@dataclass(frozen=True, eq=False)
class Replay:
    """One row's pass: logits (T, V), each layer's states (S, D) and attentions (H, S, S); `prompt` is P + 1."""

    prompt: int
    logits: Tensor
    states: list[Tensor]
    attentions: list[Tensor]

    def state(self, step: int, layer: int, longest: int) -> Tensor:
        """What code number `step` came of: (1, D), the first one (`longest`, D)."""
        states = self.states[layer]
        if step:
            return states[self.prompt + step - 1, None]
        return F.pad(states[: self.prompt], (0, 0, longest - self.prompt, 0))

    def attention(self, step: int, layer: int, longest: int) -> Tensor:
        """Whom that position looked at: (H, 1, `longest` + step), the first one (H, `longest`, `longest`)."""
        seen = self.prompt + step
        weights = self.attentions[layer][:, (seen - 1 if step else 0) : seen, :seen]
        short = longest - self.prompt
        return F.pad(weights, (short, 0, 0 if step else short, 0))


def _replay(decoder: CodeDecoder, prefix: Tensor, codes: Tensor, options: GenerationConfig) -> Replay:
    """Feed a prefix (P, D), the start code and all codes (T,) but the last."""
    start = codes.new_tensor([decoder.config.bos_token_id])
    later = torch.arange(len(codes) - 1, device=codes.device)
    positions = torch.cat((start * 0, torch.as_tensor(code_position(later, options.sampling(len(prefix))))))
    embedded = decoder.stack.embed(torch.cat((start, codes[:-1]))[None], positions[None])
    trace = Trace.wanted(hidden_states=bool(options.output_hidden_states), attentions=bool(options.output_attentions))
    attend = MaskedAttend(causal=True, trace=trace)
    embeds = torch.cat((prefix[None].to(embedded.dtype), embedded), dim=1)
    hidden = decoder.stack.hidden(embeds, lambda _: attend, trace)
    return Replay(
        len(prefix) + 1,
        decoder.logits(hidden[0, len(prefix) :]),
        [layer[0] for layer in trace.hidden_states or []],
        [layer[0] for layer in trace.attentions or []],
    )
