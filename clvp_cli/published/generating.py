"""From the published generate's arguments to the engine: prompts in, rows of codes out.

Owns which seed a row has and what of the arguments is refused. Knows nothing of files or outputs.
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
from ..generation.engine import Generated, Prompt, generate
from ..model.decoder import CodeDecoder
from .generation_config import GenerationConfig

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
