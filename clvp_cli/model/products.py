"""Products with a fixed weight, in the layout and precision that the CPU's kernels want.

Owns the kinds and what each promises; knows no layers, files or settings. M rows.

Every product here gives a row the same bits whatever the number of rows beside it, as long as there are at least
FEW_ROWS of them in float32: candidates must not depend on their batch. bfloat16 goes through oneDNN's packed kernels,
which accumulate each element in one order; float32 likewise from four rows on (fewer rows take another kernel); full,
half and brain, which are our own, accumulate in one order; int8 sums whole numbers, exactly in any order; int4 works
row by row.
tests/test_model_packed.py holds them to it.
"""

from __future__ import annotations

import platform
import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import native
from .layers import activation
from .rounding import rounded_rows, row_steps, widened_rows

Kind = Literal["plain", "packed", "full", "half", "brain", "int8", "int4"]

FUSED = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}  # activations that oneDNN appends itself
FEW_ROWS = 4  # float32 kernels differ below it
OURS: dict[Kind, torch.dtype] = {  # kinds of our own kernel's, in floats
    "full": torch.float32,
    "half": torch.float16,
    "brain": torch.bfloat16,
}
DIGIT, BASE = 64, 128  # the largest of a number's two digits, and what the higher one counts
VECTOR = 32  # numbers of 16 bits that a processor holds at once
ROWS_HINT = 16  # for how many rows oneDNN lays a weight out; any number can be multiplied
X86 = ("x86_64", "AMD64")
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
        """The activation of that name behind the product: of whole vectors, since PyTorch rounds a rest otherwise."""
        made = self(x)
        out: Tensor = activation(name)(F.pad(made, (0, -made.shape[-1] % VECTOR)))
        return out[..., : made.shape[-1]]

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


class NativeProduct(Product):
    """By our own kernel: floats, of 16 bits too; or 8-bit weights, a scale an output, times rows of 8 or 14 bits.

    What is lost is the weights' rounding, and rows': to bfloat16 beside weights in it, and as `row_steps` says beside
    those of 8 bits. float32 in and out.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, scale: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> None:
        nn.Module.__init__(self)  # the kernel holds what it multiplies
        self.times = native.Weight(weight, scale, bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.times(x)

    def activated(self, x: Tensor, name: str) -> Tensor:
        """The activation in the same kernel, where it has it."""
        return self.times(x, gelu=True) if self.activates(name) else super().activated(x, name)

    def activates(self, name: str) -> bool:
        """Whether the kernel has that activation, behind as many outputs."""
        return FUSED.get(name) == "tanh" and self.times.outputs % native.LANES == 0

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """The residual in the same kernel."""
        return self.times(x, residual)


class DigitsProduct(Product):
    """8-bit weights, a scale an output, times rows of 8 or 14 bits, a scale a row, by PyTorch's kernels for them.

    An activation is two digits of 7 bits, a row of each in one product: two products of 8 and 7 bits fit into 16, where
    processors without VNNI saturate. The sums are exact. float32 in and out.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: Tensor) -> None:
        nn.Module.__init__(self)  # the weight is packed at once, with its scale
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.scale = scale
        self.packed = packed_int8(weight, scale)
        self.zeros = torch.zeros_like(scale, dtype=torch.int32)

    def _summed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(M, in) → the product (M, out) less the rows' scales, and these (M, 1)."""
        step = row_steps(x)
        digits = x.mul(torch.stack((BASE * step, step)).reciprocal_()).round_()  # (2, M, in)
        high, low = digits.unbind()
        low.sub_(high, alpha=BASE)  # each −64 … 64 now
        high, low = self._product(digits.flatten(0, 1)).chunk(2)
        return low.add_(high, alpha=BASE), step

    def _product(self, digits: Tensor) -> Tensor:
        """Whole numbers (M, in) from −64 to 64 times the weights (M, out), their scales included."""
        if isinstance(self.packed, Tensor):
            scaling: Any = self.packed, self.scale, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
            out: Tensor = torch.ops.onednn.qlinear_pointwise(digits.add_(DIGIT).to(torch.uint8), 1.0, DIGIT, *scaling)
        else:
            out = fbgemm_int8()(digits, 1.0, DIGIT, self.packed)
        return out

    def forward(self, x: Tensor) -> Tensor:
        product, step = self._summed(x.flatten(0, -2))
        whole = product.mul_(step) if self.bias is None else torch.addcmul(self.bias, product, step)
        return whole.view(*x.shape[:-1], -1)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """The residual with the rows' scales."""
        product, step = self._summed(x.flatten(0, -2))
        whole = torch.addcmul(residual.flatten(0, -2), product, step)
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


def packed_int8(levels: Tensor, scale: Tensor) -> Any:
    """Whole numbers (out, in) from −127 to 127 and their scales (out,), as this processor's kernels want them.

    FBGEMM's without VNNI, three times as fast there as oneDNN's, which are for all others; the sums are the same.
    """
    if not uses_fbgemm():
        return torch.ops.onednn.qlinear_prepack(levels, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch announces another home for quantised tensors
        zeros = torch.zeros(len(levels), dtype=torch.long)
        whole = torch._make_per_channel_quantized_tensor(levels, scale.double(), zeros, 0)
        return torch.ops.quantized.linear_prepack(whole, None)


def fbgemm_int8() -> Any:
    """FBGEMM's product of float activations that it rounds itself, at a scale that is given."""
    return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32


def multiplies_whole_numbers() -> bool:
    """Whether products of 8-bit weights are fast here: by our own kernel, or by FBGEMM."""
    return native.kernels() is not None or uses_fbgemm()


def uses_fbgemm() -> bool:
    """Whether what our kernel does not take is multiplied by FBGEMM: where it is, on processors without VNNI."""
    return "fbgemm" in torch.backends.quantized.supported_engines and not processor_has("vnni", unsure=True)


def fitting(kind: Kind, dtype: torch.dtype, weight: Tensor) -> Kind:
    """`kind`, or the nearest for a weight (out, in) whose shape or type the kernel cannot take."""
    if kind in OURS and not native.multiplies(OURS[kind], weight.shape[1]):
        kind = "packed"
    if kind == "int4" and (weight.shape[1] % INT4_GROUP or weight.shape[0] % 16):
        kind = "packed"
    return "plain" if kind == "packed" and dtype == torch.bfloat16 and not can_pack_halves() else kind


def product(
    kind: Kind, dtype: torch.dtype, weight: Tensor, bias: Tensor | None, scale: Tensor | None = None
) -> Product:
    """A weight (out, in) and its bias, packed as `kind` for activations of `dtype`.

    A weight of whole numbers comes with its scales (out,). What is kept is copied: weights may be a file's own pages,
    which are not written to, and one left mapped would keep it all mapped.
    """
    bias = None if bias is None else bias.to(dtype, copy=True)
    if kind == "int8":
        if scale is None:
            weight, scale = rounded_rows(weight)
        if native.multiplies(torch.int8, weight.shape[1]):
            return NativeProduct(weight, bias, scale.float())
        return DigitsProduct(
            weight.clone(memory_format=torch.contiguous_format), bias, scale.to(torch.float32, copy=True)
        )
    if scale is not None:
        weight = widened_rows(weight, scale)
    kind = fitting(kind, dtype, weight)
    if kind in OURS:
        return NativeProduct(weight, bias, dtype=OURS[kind])
    if kind == "int4":
        return Int4Product(weight, bias)
    return OneDnnProduct(weight.to(dtype), bias) if kind == "packed" else Product(weight.to(dtype, copy=True), bias)


class HalfHead(nn.Module):
    """A product with a weight of 16 bits, in whatever way the processor has, between activations in float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        kind, self.dtype = halves(torch.float16 if native.kernels() else torch.bfloat16)
        self.inner = product(kind, self.dtype, weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        rows = x.flatten(0, -2)
        few = FEW_ROWS - len(rows) if needs_company(self.inner, self.dtype) else 0
        out: Tensor = self.inner(F.pad(rows, (0, 0, 0, max(0, few))).to(self.dtype)).float()
        return out[: len(rows)].view(*x.shape[:-1], -1)


def is_whole(part: nn.Module) -> bool:
    """Whether a product's weight is whole numbers of 8 bits."""
    return isinstance(part, DigitsProduct) or (isinstance(part, NativeProduct) and part.times.dtype == torch.int8)


def needs_company(part: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a product's kernel gives a row other bits if there are fewer than FEW_ROWS."""
    return dtype == torch.float32 and (type(part) in (Product, OneDnnProduct) or isinstance(part, nn.Linear))


def halves(dtype: torch.dtype) -> tuple[Kind, torch.dtype]:
    """How this processor does best with weights of 16 bits, and the type of activations between them."""
    if dtype == torch.bfloat16 and native.has_brains() and not has_tiles():
        return "brain", torch.float32
    if dtype == torch.bfloat16 and can_pack_halves():
        return "packed", dtype
    return ("half" if native.kernels() else "packed"), torch.float32


def can_pack(device: torch.device) -> bool:
    """Whether oneDNN's packed products are there for this device."""
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def can_pack_halves() -> bool:
    """Whether oneDNN multiplies bfloat16 on this processor, by its own instructions.

    With AVX512 alone it imitates them, slowly, and a row's bits follow from how many are beside it.
    """
    able = platform.machine() not in X86 or has_tiles() or processor_has("avx512_bf16", unsure=True)
    return able and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_tiles() -> bool:
    """Whether the processor has AMX, by which oneDNN multiplies bfloat16 several times as fast as AVX512 does."""
    return processor_has("amx_tile")


def processor_has(what: str, *, unsure: bool = False) -> bool:
    """Whether torch finds that in the processor; `unsure` where this version of it does not look."""
    return bool(getattr(torch.cpu, f"_is_{what}_supported", lambda: unsure)())


def flowing(kind: Kind, dtype: torch.dtype) -> torch.dtype:
    """The type that activations have between the products of a kind."""
    return torch.float32 if kind in ("int8", *OURS) else torch.bfloat16 if kind == "int4" else dtype
