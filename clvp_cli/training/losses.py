"""What training makes small: contrastive, alignment, next-code, and mel losses. Tensors only.

B batch, K extra negatives, T codes, S text ids, V classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100
MARGIN = 3.0  # nats between the text's likelihoods in a clip and in its damaged copy that are enough


def contrastive(
    text: Tensor, speech: Tensor, scale: Tensor, same: Tensor | None = None, damaged: Tensor | None = None
) -> Tensor:
    """Symmetric cross-entropy over the similarities of B pairs, as the published forward's; mean of both directions.

    Args:
        text, speech: unit vectors (B, E), row i of both a pair.
        scale: exp(logit_scale).
        same: (B, B) True where a pair off the diagonal is right as well and must not count as wrong.
        damaged: unit vectors (K, E) of damaged speech: more wrong answers for each text.
    """
    pairs = text.float() @ speech.float().t() * scale  # (B, B)
    if same is not None:
        pairs = pairs.masked_fill(same, float("-inf"))
    wide = pairs if damaged is None else torch.cat((pairs, text.float() @ damaged.float().t() * scale), dim=1)
    target = torch.arange(len(text), device=text.device)
    return (F.cross_entropy(wide, target) + F.cross_entropy(pairs.t(), target)) / 2


def alignment(log_probs: Tensor, lengths: Tensor, texts: Sequence[Sequence[int]], blank: int) -> Tensor:
    """Negative log P(text | codes) a text token, mean over the clips whose codes can hold their text; as `costs`."""
    return a_token(costs(log_probs, lengths, texts, blank), texts)


def costs(log_probs: Tensor, lengths: Tensor, texts: Sequence[Sequence[int]], blank: int) -> Tensor:
    """Negative log P(text | codes) of each whole text (B,), infinite where the codes cannot hold it.

    log_probs (B, T, V) over classes and `blank`; lengths (B,) codes; texts without blanks.
    """
    each = log_probs.new_full((len(texts),), torch.inf) + log_probs.sum() * 0
    kept = [i for i, text in enumerate(texts) if text and needed(text) <= int(lengths[i])]
    if not kept:
        return each
    counts = torch.tensor([len(texts[i]) for i in kept])
    flat = torch.tensor([token for i in kept for token in texts[i]], dtype=torch.long)
    heard, held = log_probs[kept].transpose(0, 1).cpu(), lengths[kept].cpu()
    found = F.ctc_loss(heard, flat, held, counts, blank, "none", zero_infinity=True)
    return each.index_copy(0, torch.tensor(kept, device=each.device), found.to(each.device))


def a_token(costs: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
    """Mean over the finite costs (B,) of whole texts, each divided by its length; 0 where there is none."""
    kept = costs.detach().isfinite()
    counts = torch.tensor([max(1, len(text)) for text in texts], device=costs.device)
    return (costs / counts)[kept].sum() / kept.sum().clamp(min=1)


def apart(right: Tensor, wrong: Tensor) -> Tensor:
    """How little dearer the wrong ones are: a soft hinge on the difference of costs (K,), 0 where it is large."""
    kept = right.detach().isfinite()
    return F.softplus(MARGIN - (wrong - right)[kept]).sum() / kept.sum().clamp(min=1)


def needed(text: Sequence[int]) -> int:
    """Fewest codes that a text can be laid along: one a token, one more between two that are the same."""
    return len(text) + sum(a == b for a, b in pairwise(text))


def next_code(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the next code (…, V) against (…,), places of IGNORED left out."""
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORED)


def mel_distance(made: Tensor, target: Tensor, mask: Tensor, *, relative: bool) -> tuple[Tensor, Tensor]:
    """Distance of mels (B, M, F) under a mask (B, 1, F): of levels, and of their changes in time and over the bands.

    Levels alone are nearest when they are smooth; the changes over the bands, formants and harmonics, are what a
    recogniser misses first. With `relative` mels, which are near 0 at the clip's level, loud places count most: what is
    far below is hardly heard. Returns the loss, and the plain mean absolute difference for the log.
    """
    weight = (0.3 + 0.7 * torch.sigmoid(3 * (target + 0.5))) * mask if relative else mask.expand_as(target)
    total = weight.sum()
    difference = made.float() - target
    absolute = (difference.abs() * weight).sum() / total
    squared = (difference.pow(2) * weight).sum() / total
    in_time = (difference.diff(dim=-1).abs() * weight[..., 1:]).sum() / total
    next_band = (difference.diff(dim=1).abs() * weight[:, 1:]).sum() / total
    band_after = ((difference[:, 2:] - difference[:, :-2]).abs() * weight[:, 1:-1]).sum() / total
    return absolute + 0.3 * squared + 0.5 * in_time + 0.6 * next_band + 0.4 * band_after, absolute.detach()
