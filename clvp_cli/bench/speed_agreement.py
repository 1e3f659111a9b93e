"""What a precision costs in results: its ranking against float32's, and its next-code distributions.

Kendall's tau and the share of texts whose best candidate is the same, over groups of candidates; the mean divergence
KL(float32 ‖ other) of the next code's distribution along codes that the model itself drew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ..generation.engine import Prompt, Slots, generate, prefill
from ..pipeline import Clvp
from ..records import Candidate
from ..settings import SamplingSettings
from ..signals import judge

EACH, CODES = 16, 100  # candidates of a text, codes of each at most
Floats = NDArray[np.float64]


def kendall(one: Floats, other: Floats) -> float:
    """Kendall's tau of two lists of scores: pairs in the same order less pairs in the other, of all pairs."""
    above = np.triu_indices(len(one), 1)
    signs = np.sign(one[:, None] - one)[above] * np.sign(other[:, None] - other)[above]
    return float(signs.mean())


def agreement(
    clvp: Clvp, dtypes: Sequence[str], voice: NDArray[np.float32], texts: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """A record for each type: tau, top-1 agreement, largest difference of scores, KL in nats a code."""
    exact = _at(clvp, "float32")
    groups = [_drawn(exact, text, voice) for text in texts]
    want = [_scores(exact, text, group) for text, group in zip(texts, groups, strict=True)]
    logs = [_next_codes(exact, text, voice, group) for text, group in zip(texts, groups, strict=True)]
    for dtype in dtypes:
        other = _at(clvp, dtype)
        got = [_scores(other, text, group) for text, group in zip(texts, groups, strict=True)]
        pairs = list(zip(want, got, strict=True))
        divergence = [
            _divergence(log_p, _next_codes(other, text, voice, group))
            for log_p, text, group in zip(logs, texts, groups, strict=True)
        ]
        yield {
            "measure": "agreement with float32",
            "dtype": dtype,
            "n": sum(map(len, groups)),
            "tau": float(np.mean([kendall(a, b) for a, b in pairs])),
            "top1": float(np.mean([a.argmax() == b.argmax() for a, b in pairs])),
            "score_difference": float(max(np.abs(a - b).max() for a, b in pairs)),
            "score_spread": float(np.mean([a.std() for a, _ in pairs])),
            "kl": float(np.mean(divergence)),
        }


def _at(clvp: Clvp, dtype: str) -> Clvp:
    return type(clvp).load(clvp.core.path, dataclasses.replace(clvp.settings, dtype=cast(Any, dtype)))


def _drawn(clvp: Clvp, text: str, voice: NDArray[np.float32]) -> list[Candidate]:
    options = SamplingSettings(max_codes=CODES)
    made = generate(clvp.core.decoder, [Prompt(clvp.prefix(text, voice), 1, range(EACH))], options)
    return sorted((Candidate(g.codes, g.stopped, g.index) for g in made), key=lambda c: c.index)


def _scores(clvp: Clvp, text: str, group: Sequence[Candidate]) -> Floats:
    return judge([clvp.core.clvp], clvp.core.reader, clvp.ids(text), group)["clvp"]


@torch.inference_mode()
def _next_codes(clvp: Clvp, text: str, voice: NDArray[np.float32], group: Sequence[Candidate]) -> torch.Tensor:
    """log p of every next code along the first candidate (T + 1, V), by steps that round keys and values they keep."""
    decoder, codes = clvp.core.decoder, torch.from_numpy(group[0].codes)
    prompt = prefill(decoder, clvp.prefix(text, voice))
    slots = Slots(decoder, SamplingSettings(max_codes=len(codes) + 1), 1)
    slots.admit(0, 0, 0, prompt.logits)
    logs = [slots.logits[0].float().log_softmax(-1)]
    for code in codes.unsqueeze(1).unbind():
        slots.say(code)
        slots.step({0: prompt})
        logs.append(slots.logits[0].float().log_softmax(-1))
    return torch.stack(logs)


def _divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> float:
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
