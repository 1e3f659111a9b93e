"""Where in its text each code is, and a loss that teaches a decoder's attention to look there.

A small decoder that is left to itself takes days to find out that speech follows its text from left to right; shown
where to look for the first thousand steps, it reads at once. Knows no batches, models or files.

Source: Tachibana et al. 2018 ("guided attention"), with an alignment in place of the diagonal where there is one.
T codes or slots, S targets, C classes of what hears them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .losses import needed

Floats = NDArray[np.float32]

ALIGNED_WIDTH = 1.2  # ids on either side that count as right, about, where an alignment tells the place
DIAGONAL_WIDTH = 0.12  # the same as a share of the text, where only the diagonal does


def diagonal(codes: int, ids: int) -> Floats:
    """The place in a text of `ids` ids that each of `codes` codes has if all ids take equally long: (T,)."""
    return ((np.arange(codes) + 0.5) / codes * ids).astype(np.float32)


def forced_alignment(log_probs: Floats, targets: Sequence[int], blank: int) -> Floats | None:
    """The most probable way to lay targets (S,) along log-probabilities (T, C): the target that is on at each code.

    Returns:
        (T,) places among the targets, halfway between two where a blank is between them, −½ and S − ½ where one is at
        the ends, never falling; None where there are no targets or too few codes for them.
    """
    states = np.full(2 * len(targets) + 1, blank)
    states[1::2] = targets
    length, count = len(log_probs), len(states)
    if not len(targets) or length < needed(targets):
        return None
    skips = np.zeros(count, dtype=bool)  # a blank may be left out between two targets that differ
    skips[3::2] = states[3::2] != states[1:-2:2]
    never = -np.inf
    best = np.full(count, never)
    best[:2] = log_probs[0, states[:2]]
    steps = np.zeros((length, count), dtype=np.int8)
    for t in range(1, length):
        one = np.concatenate(([never], best[:-1]))
        two = np.where(skips, np.concatenate(([never, never], best[:-2])), never)
        choices = np.stack((best, one, two))
        steps[t] = choices.argmax(0)
        best = choices.max(0) + log_probs[t, states]
    state = count - 1 if best[-1] >= best[-2] else count - 2
    places = np.empty(length, dtype=np.float32)
    for t in range(length - 1, -1, -1):
        places[t] = (state - 1) / 2
        state -= int(steps[t, state])
    return places


def windows(places: Sequence[Floats], widths: Sequence[float], keys: int, first: int) -> Tensor:
    """How near each prompt position is to where a code is: (B, T, keys), 1 at the place, by a Gaussian.

    `first` is the position of a text's id 0; rows behind a clip's end are 0.
    """
    length = max(map(len, places))
    near = torch.zeros(len(places), length, keys)
    position = torch.arange(keys, dtype=torch.float32) - first
    for row, place, width in zip(near, places, widths, strict=True):
        distance = (position[None, :] - torch.from_numpy(place)[:, None]) / width
        row[: len(place)] = torch.exp(-distance.pow(2) / 2)
    return near


def attention_loss(weights: Tensor, near: Tensor, known: Tensor) -> Tensor:
    """−log of the attention that falls near the right place, mean over the codes that count.

    weights (B, H, T, K) of the heads that are guided, near (B, T, K), known (B, T) True where there is a code.
    """
    hit = (weights.float() * near.unsqueeze(1)).sum(-1)  # (B, H, T)
    lost = -(hit + 1e-4).log().mean(1)
    return lost[known].mean()
