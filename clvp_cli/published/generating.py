"""From the published generate's arguments to the engine and back: prompts in, rows of codes out.

Owns which seed a row has, how rows become `sequences`, and what a pass over them shows. Knows nothing of files.
P prefix positions, D width, T codes, N rows (prompts × num_return_sequences).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from ..generation.beam import beam_search
from ..generation.engine import Generated, Prompt, code_position, generate
from ..model.decoder import CodeDecoder
from ..model.layers import MaskedAttend, Trace
from .generation_config import GenerationConfig
from .outputs import GenerateDecoderOnlyOutput, Layers

log = logging.getLogger("clvp")


@dataclass(frozen=True, eq=False)
class Row:
    """One generated row: its prompt's number, its codes (T,) with the stop code where it stopped."""

    prompt: int
    codes: Tensor
    stopped: bool
    logprob: float


def generate_rows(decoder: CodeDecoder, prefixes: Sequence[Tensor], options: GenerationConfig) -> list[Row]:
    """num_return_sequences rows of each prefix (P, D), in order; a row is what it is alone."""
    config = decoder.config
    for name, given, own in (
        ("eos_token_id", options.eos_token_id, config.eos_token_id),
        ("bos_token_id", options.bos_token_id, config.bos_token_id),
    ):
        if given not in (None, own):
            raise ConfigError(f"{name} is {given!r}, but the decoder was made with {own}", f"leave {name} out")
    if options.num_beams > 1 and options.do_sample:
        log.warning("beam search here is deterministic: do_sample has no effect with num_beams=%d", options.num_beams)
    kept = range(options.num_return_sequences)
    found: list[Row] = []
    for length in sorted({len(prefix) for prefix in prefixes}):  # max_length counts the prompt
        sampling = options.sampling(length)
        numbers = [n for n, prefix in enumerate(prefixes) if len(prefix) == length]
        prompts = [Prompt(prefixes[n].detach(), _seed(options), kept) for n in numbers]
        if options.num_beams > 1:
            made = [(n, g) for n, p in zip(numbers, prompts, strict=True) for g in beam_search(decoder, p, sampling)]
        else:
            engine = generate(decoder, prompts, sampling, batch_size=options.batch_size)
            made = sorted(((numbers[g.prompt], g) for g in engine), key=lambda pair: (pair[0], pair[1].index))
        found += [_row(number, g, config.eos_token_id) for number, g in made]
    return sorted(found, key=lambda row: row.prompt)


def _seed(options: GenerationConfig) -> int:
    """The seed asked for, or one from torch's generator: torch.manual_seed governs it, and equal prompts differ."""
    if options.seed is not None or not options.do_sample:
        return options.seed or 0
    return int(torch.randint(2**63 - 1, ()))


def _row(prompt: int, made: Generated, stop: int) -> Row:
    codes = [*made.codes.tolist(), stop] if made.stopped else made.codes.tolist()
    return Row(prompt, torch.tensor(codes, dtype=torch.long), made.stopped, made.logprob)


def stack_rows(rows: Sequence[Tensor], fill: int, length: int = 0) -> Tensor:
    """Rows (T,) → (N, longest T, or `length` where that is more), short ones filled up on the right."""
    length = max([length, *(len(row) for row in rows)])
    return torch.stack([F.pad(row, (0, length - len(row)), value=fill) for row in rows])


def collect(
    decoder: CodeDecoder, prefixes: Sequence[Tensor], rows: Sequence[Row], options: GenerationConfig
) -> GenerateDecoderOnlyOutput:
    """Rows as the published output; hidden states, attentions and logits come of one more pass, where asked for."""
    stop = decoder.config.eos_token_id
    device = decoder.lm_head.weight.device
    fill = stop if options.pad_token_id is None else options.pad_token_id
    sequences = F.pad(stack_rows([row.codes for row in rows], fill), (1, 0), value=decoder.config.bos_token_id)
    scores = [row.logprob / len(row.codes) ** options.length_penalty for row in rows]
    shown = Shown()
    if options.output_hidden_states or options.output_attentions or options.output_logits:
        shown = show(decoder, prefixes, rows, options)
    return GenerateDecoderOnlyOutput(
        sequences=sequences.to(device),
        sequences_scores=torch.tensor(scores, device=device) if options.num_beams > 1 else None,
        logits=shown.logits,
        attentions=shown.attentions,
        hidden_states=shown.hidden_states,
        stopped=torch.tensor([row.stopped for row in rows], device=device),
    )


@dataclass(frozen=True, eq=False)
class Shown:
    """One entry a code: logits (N, V), hidden states (N, 1 or P + 1, D) and attentions of each layer."""

    logits: Layers | None = None
    hidden_states: tuple[Layers, ...] | None = None
    attentions: tuple[Layers, ...] | None = None


def show(decoder: CodeDecoder, prefixes: Sequence[Tensor], rows: Sequence[Row], options: GenerationConfig) -> Shown:
    """What the decoder was in while it drew these rows, from one uncached pass a row at the positions it used.

    The first entry covers the whole prompt. Rows that ended early go on with stop codes, as published; prompts shorter
    than the longest have zeros before them.
    """
    codes = stack_rows([row.codes for row in rows], decoder.config.eos_token_id).to(decoder.lm_head.weight.device)
    steps, longest = codes.shape[1], max(len(prefix) for prefix in prefixes) + 1
    passes = [_replay(decoder, prefixes[row.prompt], codes[i], options) for i, row in enumerate(rows)]
    logits = torch.stack([each[0] for each in passes])  # (N, T, V)
    layers = range(len(decoder.stack.layers))

    def hidden(step: int, layer: int) -> Tensor:
        if step:
            return torch.stack(
                [trace.hidden_states[layer][0, step - steps, None] for _, trace in passes if trace.hidden_states]
            )
        tops = [
            trace.hidden_states[layer][0, : trace.hidden_states[layer].shape[1] - steps + 1]
            for _, trace in passes
            if trace.hidden_states
        ]
        return torch.stack([F.pad(top, (0, 0, longest - len(top), 0)) for top in tops])

    def attention(step: int, layer: int) -> Tensor:
        parts = []
        for _, trace in passes:
            assert trace.attentions is not None
            whole = trace.attentions[layer][0]  # (H, S, S)
            seen = whole.shape[1] - steps + 1 + step
            part = whole[:, :seen, :seen] if step == 0 else whole[:, seen - 1 : seen, :seen]
            short = longest + step - seen
            parts.append(F.pad(part, (short, 0, short if step == 0 else 0, 0)))
        return torch.stack(parts)

    return Shown(
        tuple(logits.unbind(1)) if options.output_logits else None,
        tuple(tuple(hidden(step, layer) for layer in (*layers, len(layers))) for step in range(steps))
        if options.output_hidden_states
        else None,
        tuple(tuple(attention(step, layer) for layer in layers) for step in range(steps))
        if options.output_attentions
        else None,
    )


def _replay(decoder: CodeDecoder, prefix: Tensor, codes: Tensor, options: GenerationConfig) -> tuple[Tensor, Trace]:
    """Feed a prefix (P, D), the start code and all codes (T,) but the last: logits (T, V), and the trace."""
    sampling = options.sampling(len(prefix))
    start = codes.new_tensor([decoder.config.bos_token_id])
    later = torch.arange(len(codes) - 1, device=codes.device)
    positions = torch.cat((torch.zeros_like(start), torch.as_tensor(code_position(later, sampling))))
    embedded = decoder.stack.embed(torch.cat((start, codes[:-1]))[None], positions[None])
    trace = Trace.wanted(hidden_states=bool(options.output_hidden_states), attentions=bool(options.output_attentions))
    attend = MaskedAttend(causal=True, trace=trace)
    hidden = decoder.stack.hidden(
        torch.cat((prefix[None].to(embedded.dtype), embedded), dim=1), lambda _: attend, trace
    )
    return decoder.logits(hidden[0, len(prefix) :]), trace
