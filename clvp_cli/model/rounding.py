"""How floats become whole numbers beside each other: a weight's rows and columns, and rows that it is multiplied with.

Tensors only. M rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

SHORT, LONG = 127, 8192  # the largest number of a row in 8 bits, and in 14
CREST, PEAK = 12, 32  # 8 bits of a row reach so many times the mean of its numbers without signs, as in whole.c
OUTLIERS = 32  # of so many numbers of a row, one may be above it, as in kernels.h
FLATTEST = 10  # a column is made at most 2 to this times as large, or as small
AT_ONCE = 2**17  # numbers of a weight that are rounded at once


def row_steps(x: Tensor) -> Tensor:
    """What a whole number of each row (M, in) counts where weights have 8 bits (M, 1); ours has the same.

    The largest is 127, or CREST times their mean without signs is if that is less, few being above it. Where many are,
    or the largest is more than PEAK times the mean, the largest is 8192.
    """
    largest, inputs = x.abs().amax(-1, keepdim=True).clamp_(min=1e-30), x.shape[-1]
    step = largest / SHORT
    whole = x.mul(step.reciprocal()).round_().abs_().sum(-1, keepdim=True, dtype=torch.float64)
    crest, peak = ((whole * times).float() / (SHORT * inputs) for times in (CREST, PEAK))
    clipped = step * crest
    above = (x.mul(clipped.reciprocal()).round_().abs_() > SHORT).sum(-1, keepdim=True)
    fine = (peak < 1) | (above > inputs // OUTLIERS)
    return torch.where(crest >= 1, step, torch.where(fine, largest / LONG, clipped))


def rounded_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (out, in) as whole numbers from −127 to 127 and a float32 scale for each output (out,)."""
    levels, scales = zip(*map(_rounded, _few_rows(weight)), strict=True)
    return torch.cat(levels), torch.cat(scales)


def _rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    scale = rows.abs().amax(1).clamp_(min=1e-30) / 127
    return rows.div_(scale[:, None]).round_().to(torch.int8), scale


def _few_rows(weight: Tensor) -> Iterator[Tensor]:
    """Copies of a weight's rows in float32, as many at once as stay in a processor's cache."""
    for rows in torch.split(weight.contiguous(), max(1, AT_ONCE // weight.shape[1])):
        yield rows.to(torch.float32, copy=True)


def column_scales(weights: Sequence[Tensor]) -> Tensor:
    """Powers of two (in,) that make the columns of weights (out, in) about as large as each other, float32.

    Columns times these, and inputs divided by them, are the same product; but where a norm has made some inputs large
    and training their columns small, rounding a row to its largest weight then leaves the small ones their bits. A
    power of two rounds nothing itself.
    """
    squares = torch.stack([rows.square_().sum(0) for weight in weights for rows in _few_rows(weight)]).sum(0)
    level = squares[squares > 0].mean()
    scales = torch.exp2((level / squares).log2().div(2).round().clamp(-FLATTEST, FLATTEST))
    return torch.where(squares > 0, scales, 1.0)


def widened_rows(levels: Tensor, scale: Tensor) -> Tensor:
    """The float32 weight (out, in) that whole numbers and their scales (out,) stand for."""
    return levels.float() * scale.unsqueeze(1)
