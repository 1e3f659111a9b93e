"""Products with a fixed weight, in the layout and precision that the CPU's kernels want.

Owns the kinds and what each promises; knows no layers, files or settings. M rows.

Every product here gives a row the same bits whatever the number of rows beside it, as long as there are at least
FEW_ROWS of them in float32: candidates must not depend on their batch. bfloat16 goes through oneDNN's packed kernels,
which accumulate each element in one order; float32 likewise from four rows on (fewer rows take another kernel); int8
sums whole numbers, which is exact in any order; int4 works row by row. tests/test_model_packed.py holds them to it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import activation

Kind = Literal["plain", "packed", "int8", "int4"]

FUSED = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}  # activations that oneDNN appends itself
FEW_ROWS = 4  # float32 kernels differ below it
ROWS_HINT = 16  # for how many rows oneDNN lays a weight out; any number can be multiplied
INT4_GROUP = 128  # inputs that share a scale and a zero


class Product(nn.Module):
    """x (…, in) → x W' + b (…, out), and the same with an activation behind or a residual added."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.weight: Tensor
        self.keep(weight)

    def keep(self, weight: Tensor) -> None:
        """Take the weight (out, in) in."""
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def activated(self, x: Tensor, name: str) -> Tensor:
        """The activation of that name behind the product."""
        out: Tensor = activation(name)(self(x))
        return out

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """The product added to `residual` (…, out)."""
        out: Tensor = residual + self(x)
        return out


class OneDnnProduct(Product):
    """float32 or bfloat16 in oneDNN's blocked layout, rearranged once instead of at every product."""

    def keep(self, weight: Tensor) -> None:
        """Rearrange the weight; the packed tensor is no parameter: it has no plain memory to save or move."""
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_HINT)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out

    def activated(self, x: Tensor, name: str) -> Tensor:
        """The activation in the same kernel, where oneDNN has it."""
        if name not in FUSED:
            return super().activated(x, name)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], FUSED[name])
        return out

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """The residual in the same kernel."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
        return out


class Int8Product(Product):
    """8-bit weights, a scale an output, times 8-bit activations, a scale a row, summed as whole numbers.

    Rounding both sides of a product to 8 bits is what is lost; the sum itself is exact. float32 in and out.
    """

    def keep(self, weight: Tensor) -> None:
        """Round the weight to −127 … 127 of its row's largest."""
        wide = weight.float()
        scale = wide.abs().amax(1).clamp_(min=1e-30) / 127
        rounded = wide.div(scale[:, None]).round_().to(torch.int8).contiguous()
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.scale, self.zeros = scale, torch.zeros_like(scale, dtype=torch.int32)
        self.middle = torch.tensor(128.5)  # unsigned 8 bits around 128, and a half so that cutting off rounds

    def _scaled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(M, in) → the product (M, out) less the rows' scales, and these (M, 1)."""
        peak = x.abs().amax(-1, keepdim=True).clamp_(min=1e-30)
        levels = torch.addcmul(self.middle, x, 127 / peak).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            levels, 1.0, 128, self.weight, self.scale, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return product, peak / 127

    def forward(self, x: Tensor) -> Tensor:
        product, scale = self._scaled(x.flatten(0, -2))
        whole = product * scale if self.bias is None else torch.addcmul(self.bias, product, scale)
        return whole.view(*x.shape[:-1], -1)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """The residual with the rows' scales."""
        product, scale = self._scaled(x.flatten(0, -2))
        whole = torch.addcmul(residual.flatten(0, -2), product, scale)
        return (whole if self.bias is None else whole.add_(self.bias)).view_as(residual)


class Int4Product(Product):
    """4-bit weights, a scale and a zero for each INT4_GROUP inputs; bfloat16 in and out. For few rows."""

    def keep(self, weight: Tensor) -> None:
        """Round each group of a row to 16 levels between its least and its largest."""
        groups = weight.float().contiguous().view(len(weight), -1, INT4_GROUP)
        low, high = groups.aminmax(dim=-1, keepdim=True)
        step = ((high - low) / 15).clamp_(min=1e-8)
        levels = ((groups - low) / step).round_().to(torch.int32).flatten(1)
        self.weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
        middle = low + 8 * step  # the kernel computes (level − 8) · step + middle
        self.steps = torch.cat((step, middle), -1).transpose(0, 1).contiguous().to(torch.bfloat16)  # (groups, out, 2)

    def forward(self, x: Tensor) -> Tensor:
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(x.flatten(0, -2), self.weight, INT4_GROUP, self.steps)
        whole = product if self.bias is None else product.add_(self.bias)
        out: Tensor = whole.view(*x.shape[:-1], -1)
        return out


PRODUCTS: dict[Kind, type[Product]] = {
    "plain": Product,
    "packed": OneDnnProduct,
    "int8": Int8Product,
    "int4": Int4Product,
}


def fitting(kind: Kind, dtype: torch.dtype, weight: Tensor) -> Kind:
    """`kind`, or the nearest for a weight (out, in) whose shape or type the kernel cannot take."""
    if kind == "int4" and (weight.shape[1] % INT4_GROUP or weight.shape[0] % 16):
        kind = "packed"
    return "plain" if kind == "packed" and dtype == torch.bfloat16 and not can_pack_halves() else kind


def product(kind: Kind, dtype: torch.dtype, weight: Tensor, bias: Tensor | None) -> Product:
    """A weight (out, in) and its bias, packed as `kind` for activations of `dtype`."""
    kind = fitting(kind, dtype, weight)
    if kind in ("plain", "packed"):
        weight = weight.to(dtype, copy=kind == "plain")
    return PRODUCTS[kind](weight, None if bias is None else bias.to(dtype, copy=True))


class HalfHead(nn.Module):
    """A product in bfloat16, where the processor has that, between activations in float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.dtype = torch.bfloat16 if can_pack_halves() else torch.float32
        self.inner = product("packed", self.dtype, weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.to(self.dtype)).float()
        return out


def can_pack(device: torch.device) -> bool:
    """Whether oneDNN's packed products are there for this device."""
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def can_pack_halves() -> bool:
    """Whether oneDNN multiplies bfloat16 on this processor."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def flowing(kind: Kind, dtype: torch.dtype) -> torch.dtype:
    """The type that activations have between the products of a kind."""
    return {"int8": torch.float32, "int4": torch.bfloat16}.get(kind, dtype)
