"""Decoder weights kept in 8 bits: which they are, and how a state is rounded on its way to disk and widened again.

A rounded matrix is whole numbers under its own name, and beside it `…weight_scale`, a float32 for each output. The
encoders stay as they are: scores do not change, and nothing would be faster. What rounding costs is in model/products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from .layout import ROUNDED, SCALES, roundable, scale_shape, stored_turned
from .tensors import FLOAT_TYPES, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

    from .writer import Produce


def is_rounded(infos: Mapping[str, TensorInfo]) -> bool:
    """Whether a state has weights in 8 bits."""
    return any(info.dtype == ROUNDED for info in infos.values())


def rounded(infos: Mapping[str, TensorInfo], produce: Produce) -> tuple[dict[str, TensorInfo], Produce]:
    """The same state with what is `roundable` as whole numbers and scales."""
    made = dict(infos)
    for name, info in infos.items():
        if roundable(name) and info.dtype in FLOAT_TYPES:
            made[name] = replace(info, dtype=ROUNDED)
            made[name + SCALES] = TensorInfo(name + SCALES, "F32", scale_shape(name, info.shape))

    def produced(name: str) -> Tensor:
        if name in infos and made[name] == infos[name]:
            return produce(name)
        from ..model.products import rounded_rows

        weight = produce(name.removesuffix(SCALES))
        levels, scale = rounded_rows(weight.t() if stored_turned(name) else weight)
        if name.endswith(SCALES):
            return scale
        return levels.t() if stored_turned(name) else levels

    return made, produced


def widened(name: str, levels: Tensor, scale: Tensor) -> Tensor:
    """The float32 weight that whole numbers and scales stand for."""
    return levels.float() * (scale if stored_turned(name) else scale.unsqueeze(1))
