"""Logits → codes: pure functions, one row a candidate, no loops over rows.

Knows nothing of models or caches. N candidates, V codes, K kept codes. Order, as in Tortoise and transformers:
repetition penalty → temperature → top-k → top-p → typical.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..settings import SamplingSettings

NEVER = -float("inf")


def uniforms(seed: int, index: int, length: int) -> NDArray[np.float64]:
    """The (length,) uniform numbers of candidate `index`: a function of (seed, index) alone.

    A counter-based generator keyed by both, so that neither N nor the batch size nor the device moves a draw, and a
    longer series begins with the shorter one.
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64))).random(length)


def initial_history(rows: int, vocab: int, start: int, options: SamplingSettings) -> Tensor:
    """(N, V) True for codes that count as said before the first one.

    "codes": none. "start": the start code, as transformers has it. "tortoise": also code 1, the filler that stands
    for the prompt in Tortoise's input ids.
    """
    said = torch.zeros(rows, vocab, dtype=torch.bool)
    if options.penalty_history != "codes":
        said[:, start] = True
    if options.penalty_history == "tortoise":
        said[:, 1] = True
    return said


def penalise(logits: Tensor, said: Tensor, penalty: float) -> Tensor:
    """Divide positive logits of said codes by the penalty, multiply negative ones (CTRL, Keskar et al. 2019)."""
    if penalty == 1.0:
        return logits
    of_both = torch.minimum if penalty > 1.0 else torch.maximum  # the one for its sign is the less likely, or the more
    return torch.where(said, of_both(logits * penalty, logits / penalty), logits)


def choose(logits: Tensor, said: Tensor, draws: Tensor | None, options: SamplingSettings) -> Tensor:
    """Next codes (N,) from logits (N, V), forbidden ones at −inf.

    said (N, V) is the penalty's history; draws (N,) uniform numbers in float64. None takes the most probable code.
    """
    logits = penalise(logits.float(), said, options.repetition_penalty)
    if draws is None:
        return logits.argmax(-1)
    kept, codes = shortlist(logits, options.top_k)
    kept = nucleus(kept / options.temperature, options.top_p)
    kept = typical(kept, options.typical_p)
    # In code order, a near-tie between two codes cannot change which of them a draw falls on.
    order = codes.argsort(-1)
    return codes.gather(-1, order).gather(-1, invert_cdf(kept.gather(-1, order), draws).unsqueeze(-1)).squeeze(-1)


def shortlist(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The top_k logits of each row (N, K), descending, and their codes (N, K); 0 keeps all."""
    kept, codes = logits.topk(min(top_k or logits.shape[-1], logits.shape[-1]), dim=-1)
    return kept, codes


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Drop (−inf) what lies behind the first codes whose mass reaches top_p. Descending logits (N, K)."""
    if top_p >= 1.0:
        return logits
    probabilities = logits.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    drop = before >= top_p
    drop[:, 0].fill_(False)
    return logits.masked_fill(drop, NEVER)


def typical(logits: Tensor, mass: float) -> Tensor:
    """Keep the codes whose surprise is nearest to the entropy, until `mass` is reached (Meister et al. 2022)."""
    if mass >= 1.0:
        return logits
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    entropy = -(p * log_p).nan_to_num(0.0).sum(-1, keepdim=True)
    nearest = (-log_p - entropy).abs().argsort(-1)
    ordered = p.gather(-1, nearest)
    drop = (ordered.cumsum(-1) - ordered) >= mass
    drop[:, 0].fill_(False)
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, nearest, drop), NEVER)


def invert_cdf(logits: Tensor, draws: Tensor) -> Tensor:
    """The place (N,) in each row of logits (N, K) where the cumulative probability passes the draw."""
    cdf = logits.double().softmax(-1).cumsum(-1)
    places = torch.searchsorted(cdf, (draws * cdf[:, -1]).unsqueeze(-1), right=True).squeeze(-1)
    last = (logits > NEVER).cumsum(-1).argmax(-1)  # never past the last possible code, whatever the rounding
    return torch.minimum(places, last)
