"""Decoder weights kept in 8 bits: which they are, and how a state is rounded on its way to disk and widened again.

A rounded matrix is whole numbers under its own name, and beside it `…weight_scale`, a float32 for each output. The
columns of what a norm feeds are evened out first, and the norm's own weights divided by as much. The encoders stay as
they are: scores do not change, and nothing would be faster. What rounding costs is in model/products.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from .layout import PARTS, ROUNDED, SCALES, roundable, scale_shape, stored_turned
from .tensors import FLOAT_TYPES, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

    from .writer import Produce

FED = {  # a norm in a decoder layer → the matrices that it feeds
    "input_layernorm": ("attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight"),
    "post_attention_layernorm": ("mlp.c_fc.weight",),
}


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
        whole = name.removesuffix(SCALES)
        fed = [each for each in _fed_alike(whole) if made[each] != infos[each]]
        if not fed and name in infos and made[name] == infos[name]:
            return produce(name)
        from ..model.rounding import column_scales, rounded_rows

        weight = produce(whole)
        columns = column_scales([_outputs_first(each, produce(each)) for each in fed]) if fed else 1.0
        if not roundable(whole):  # a norm
            return (weight / columns).to(weight.dtype)
        levels, scale = rounded_rows(_outputs_first(whole, weight) * columns)
        return scale if name.endswith(SCALES) else _outputs_first(whole, levels)

    return made, produced


def _fed_alike(name: str) -> tuple[str, ...]:
    """For a norm's weight or bias in the decoder's layers, or a matrix that a norm feeds: all that this norm feeds."""
    found = re.match(re.escape(PARTS["decoder"]) + r"model\.decoder\.layers\.\d+\.", name)
    part = name[found.end() :] if found else ""
    for norm, matrices in FED.items():
        if found and (part.startswith(f"{norm}.") or part in matrices):
            return tuple(found[0] + matrix for matrix in matrices)
    return ()


def _outputs_first(name: str, weight: Tensor) -> Tensor:
    """A matrix as it is stored → (out, in), and back."""
    return weight.t() if stored_turned(name) else weight


def widened(name: str, levels: Tensor, scale: Tensor) -> Tensor:
    """The float32 weight that whole numbers and scales stand for."""
    return levels.float() * (scale if stored_turned(name) else scale.unsqueeze(1))
