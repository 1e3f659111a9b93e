"""Beam search: the likeliest code sequences of one prompt, found with a beam of fixed width.

Follows transformers' beam search to the letter (length penalty on the finished sequence, 2·beams continuations a step,
no early stopping), on the engine's caches. B beams, V codes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..model.decoder import CodeDecoder
from ..model.packed import least_rows
from ..settings import SamplingSettings
from .engine import Generated, Prompt, code_position, longest_possible, permitted, prefill, row_cache
from .sampler import initial_history, penalise
from .steps import sharing


class Hypotheses:
    """The best `width` finished sequences so far."""

    def __init__(self, width: int, length_penalty: float) -> None:
        self.width, self.length_penalty = width, length_penalty
        self.finished: list[tuple[float, float, list[int]]] = []  # (score, sum of log p, codes with the stop)

    def score(self, logprob: float, length: int) -> float:
        """Sum of log p over length ** penalty."""
        return float(logprob / length**self.length_penalty)

    def add(self, codes: list[int], logprob: float, length: int) -> None:
        """Keep a finished sequence if it is among the best."""
        self.finished.append((self.score(logprob, length), logprob, codes))
        self.finished = sorted(self.finished, key=lambda entry: -entry[0])[: self.width]

    def closed(self, best_logprob: float, length: int) -> bool:
        """Whether no live beam can still enter."""
        return len(self.finished) == self.width and self.finished[-1][0] >= self.score(best_logprob, length)


@torch.inference_mode()
def beam_search(decoder: CodeDecoder, prompt: Prompt, options: SamplingSettings) -> list[Generated]:
    """The `len(prompt.indices)` best sequences of the beam (at most options.beams), best first."""
    config, width = decoder.config, options.beams
    limit = longest_possible(decoder, options)
    start = prefill(decoder, prompt.prefix)
    rows = max(width, least_rows(decoder))
    cache = row_cache(decoder, rows, limit)
    logits = start.logits.expand(width, -1)
    scores = torch.tensor([0.0] + [-1e9] * (width - 1), device=logits.device)
    said = initial_history(width, config.vocab_size, config.bos_token_id, options).to(logits.device)
    codes = torch.zeros(width, 0, dtype=torch.long, device=logits.device)
    found = Hypotheses(width, options.length_penalty)
    owners = torch.zeros(rows, dtype=torch.long, device=logits.device)
    shared = sharing(decoder, cache, [start.cache], owners)
    for count in range(limit):
        ranked = _continuations(logits, said, scores, count, decoder, options)
        beams, chosen, scores = _select(ranked, codes, config.eos_token_id, width, found)
        codes = torch.cat((codes[beams], chosen.unsqueeze(1)), dim=1)
        said = said[beams].scatter(1, chosen.unsqueeze(1), True)
        if found.closed(float(ranked[0].max()), count + 1) or count + 1 == limit:
            break
        cache.reorder(beams)
        step = shared.step(rows, cache.make_room(rows))
        position = torch.full((rows, 1), int(code_position(count, options)), device=codes.device)
        fed = torch.cat((chosen, chosen[:1].expand(rows - width))).unsqueeze(1)
        logits = step.logits(decoder, fed, position)[:width]
        step.done()
    if not found.closed(float(scores.max()), codes.shape[1]):
        for row, logprob in zip(codes.tolist(), scores.tolist(), strict=True):
            found.add(row, logprob, len(row))
    return [
        _generated(entry, index, config.eos_token_id)
        for index, entry in zip(prompt.indices, found.finished, strict=False)
    ]


def _continuations(
    logits: Tensor, said: Tensor, scores: Tensor, count: int, decoder: CodeDecoder, options: SamplingSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """The 2·B best (scores, beams, codes) over all continuations of all beams."""
    log_p = penalise(logits.float().log_softmax(-1), said, options.repetition_penalty)
    counts = torch.full((len(log_p),), count, device=log_p.device)
    total = permitted(log_p, counts, decoder.config, options) + scores.unsqueeze(1)
    best, places = total.flatten().topk(min(2 * len(scores), total.numel()))
    return best, places // total.shape[1], places % total.shape[1]


def _select(
    ranked: tuple[Tensor, Tensor, Tensor], codes: Tensor, stop: int, width: int, found: Hypotheses
) -> tuple[Tensor, Tensor, Tensor]:
    """Finish the continuations that stop, keep the best `width` others: their beams, codes and scores (B,)."""
    kept: list[tuple[int, int, float]] = []
    entries = zip(*(part.tolist() for part in ranked), strict=True)
    for rank, (score, beam, code) in enumerate(entries):
        if code == stop:
            if rank < width and math.isfinite(score):
                found.add([*codes[beam].tolist(), stop], score, codes.shape[1] + 1)
        elif len(kept) < width:
            kept.append((beam, code, score))
    beams, chosen, scores = zip(*kept, strict=True)
    device = codes.device
    return (
        torch.tensor(beams, device=device),
        torch.tensor(chosen, device=device),
        torch.tensor(scores, device=device, dtype=torch.float32),
    )


def _generated(entry: tuple[float, float, list[int]], index: int, stop: int) -> Generated:
    _, logprob, codes = entry
    stopped = codes[-1] == stop
    return Generated(0, index, np.asarray(codes[:-1] if stopped else codes, dtype=np.int64), stopped, logprob)
