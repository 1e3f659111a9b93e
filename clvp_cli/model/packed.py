"""A decoder rearranged for speed after loading: q, k and v in one matrix, each weight as its kernel wants it.

Encoders are packed of the same parts, by packed_encoder.py. Packing replaces a module's layers one by one and drops the
originals, so that no second copy of the weights is ever held; what is packed cannot be saved again. Knows no files or
settings. B batch, S positions, H heads, d head width.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from .. import native
from .decoder import ClvpDecoderLayer, CodeDecoder
from .layers import Attend, AttendOne, Conv1D
from .products import (
    FEW_ROWS,
    DigitsProduct,
    HalfHead,
    Kind,
    NativeProduct,
    Product,
    can_pack_halves,
    flowing,
    is_whole,
    needs_company,
    product,
)
from .rounding import column_scales, rounded_rows, widened_rows

AT_ONCE = 4  # layers that are packed at the same time, if there are threads: each holds a copy of a weight
M = TypeVar("M", bound=nn.Module)


def joined(parts: list[nn.Linear], scale: float, kind: Kind, dtype: torch.dtype) -> Product:
    """q, k and v projections as one product (…, 3·D), the scale of the queries within it."""
    width = parts[0].out_features
    factor = torch.ones(3 * width, device=parts[0].weight.device)
    factor[:width] = scale
    bias = None
    if any(part.bias is not None for part in parts):
        none = torch.zeros_like(factor[:width])
        bias = torch.cat([none if part.bias is None else part.bias.float() for part in parts]) * factor
    scales = [found for part in parts if (found := _scales(part)) is not None]
    steps: Tensor | None = None  # what a whole number of each output counts
    if kind == "int8" and len(scales) == len(parts):
        weight, steps = torch.cat([part.weight for part in parts]), torch.cat(scales) * factor
    else:
        weight = torch.cat([_wide(part) for part in parts]).mul_(factor.unsqueeze(1))
    for part in parts:
        del part.weight
    return product(kind, dtype, weight, bias, steps)


def packed(part: nn.Linear | Conv1D, kind: Kind, dtype: torch.dtype) -> Product:
    """A layer's product. Its own weight goes at once, and with it the pages of the file that it was mapped from."""
    made = product(kind, dtype, _matrix(part), part.bias, _scales(part))
    del part.weight
    return made


def _matrix(part: nn.Linear | Conv1D) -> Tensor:
    """A layer's weight, (out, in) however it is stored."""
    return part.weight.t() if isinstance(part, Conv1D) else part.weight


def _flatten(norm: nn.LayerNorm, parts: Sequence[nn.Linear | Conv1D]) -> None:
    """Even out the columns of what a norm feeds, and have the norm undo it; what is rounded already is left."""
    if any(_scales(part) is not None for part in parts):
        return
    scales = column_scales([_matrix(part) for part in parts])
    if bool((scales == 1).all()):
        return
    norm.weight.data, norm.bias.data = norm.weight / scales, norm.bias / scales
    for part in parts:
        part.weight.data = (_matrix(part) * scales).t() if isinstance(part, Conv1D) else part.weight * scales


def _scales(part: nn.Module) -> Tensor | None:
    """The scales of a weight that is whole numbers."""
    return getattr(part, "weight_scale", None)


def _wide(part: nn.Linear) -> Tensor:
    scales = _scales(part)
    return part.weight.float() if scales is None else widened_rows(part.weight, scales)


class PackedAttention(nn.Module):
    """Self-attention over one joined projection."""

    def __init__(self, heads: int, parts: list[nn.Linear], out: nn.Linear, kind: Kind, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = joined(parts, (parts[0].out_features // heads) ** -0.5, kind, dtype)
        self.out = packed(out, kind, dtype)

    def forward(self, x: Tensor, attend: Attend, residual: Tensor) -> Tensor:
        """Normed (B, S, D) and what it is added to (B, S, D) → (B, S, D)."""
        qkv = self.qkv(x)  # (B, S, 3·D)
        if isinstance(attend, AttendOne):
            mixed = attend.joined(qkv.view(len(qkv), 3, self.heads, -1)).view_as(x)
        else:
            parts = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, S, d)
            mixed = attend(*parts).transpose(1, 2).flatten(-2)
        return self.out.add(mixed, residual)


def all_ours(attn: PackedAttention, *mlp: Product) -> list[native.Weight] | None:
    """The weights of a layer's four products, if each is our own kernel's, and attention, too."""
    ours = [part.times for part in (attn.qkv, attn.out, *mlp) if isinstance(part, NativeProduct)]
    return ours if len(ours) == 4 and native.attends(ours[1].inputs // attn.heads) else None


@dataclass
class NativeAttend(AttendOne):
    """By our own kernel, which finds rows and prompts where `attention` says; each row has `lengths` (n,) codes."""

    attention: native.Attention
    lengths: Tensor

    def joined(self, qkv: Tensor) -> Tensor:
        """(n, 3, H, d) → (n, H, d)."""
        return self.attention(qkv.float(), self.lengths).to(qkv.dtype)


class PackedDecoderLayer(nn.Module):
    """A ClvpDecoderLayer for inference: x + attention(norm x), then x + mlp(norm x).

    `whole` is all of it for our own kernels, where they have each part.
    """

    def __init__(self, layer: ClvpDecoderLayer, act: str, kind: Kind, dtype: torch.dtype) -> None:
        super().__init__()
        self.act = act
        self.input_layernorm = owned(layer.input_layernorm, dtype)
        self.post_attention_layernorm = owned(layer.post_attention_layernorm, dtype)
        attn, mlp = layer.attn, layer.mlp
        qkv = [attn.q_proj, attn.k_proj, attn.v_proj]
        if kind == "int8":
            _flatten(self.input_layernorm, qkv)
            _flatten(self.post_attention_layernorm, [mlp.c_fc])
        self.attn = PackedAttention(attn.heads, qkv, attn.out_proj, kind, dtype)
        self.fc, self.proj = (packed(part, kind, dtype) for part in (mlp.c_fc, mlp.c_proj))
        self.whole = self._whole()

    def _whole(self) -> native.Layer | None:
        ours = all_ours(self.attn, self.fc, self.proj)
        if ours is None or not cast(NativeProduct, self.fc).activates(self.act):
            return None
        return native.Layer((self.input_layernorm, self.post_attention_layernorm), ours, self.attn.heads)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        x = self.attn(self.input_layernorm(x), attend, x)
        return self.proj.add(self.fc.activated(self.post_attention_layernorm(x), self.act), x)


@torch.no_grad()
def pack_decoder(decoder: CodeDecoder, kind: Kind, dtype: torch.dtype = torch.float32) -> CodeDecoder:
    """Pack a decoder in place, layer by layer; its head stays in at least 16 bits.

    Its weights may be of any floating type: they are cast on the way. int8 and int4 need a CPU.
    """
    dtype = flowing(kind, dtype)
    stack, act = decoder.stack, decoder.config.activation_function
    replace_each(stack.layers, lambda layer: PackedDecoderLayer(cast(ClvpDecoderLayer, layer), act, kind, dtype))
    _widen_table(stack.input_embeds_layer, rounds=kind == "int8")
    head = decoder.lm_head
    if kind in ("int8", "int4"):
        decoder.lm_head = HalfHead(head.weight, head.bias)  # type: ignore[assignment]
    else:
        decoder.lm_head = product(kind, dtype, head.weight, head.bias)  # type: ignore[assignment]
    for part in (stack.input_embeds_layer, stack.position_embeds_layer, stack.layer_norm, decoder.final_norm):
        owned(part, dtype)
    return decoder


def _widen_table(table: nn.Embedding, *, rounds: bool) -> None:
    """Make a table that is kept in 8 bits the floats they stand for; with `rounds`, another one what 8 bits would."""
    scales = _scales(table)
    if scales is None and not rounds:
        return
    levels, scales = rounded_rows(table.weight) if scales is None else (table.weight, scales)
    table.register_buffer("weight_scale", None)
    table.weight = nn.Parameter(widened_rows(levels, scales), requires_grad=False)


def owned(module: M, dtype: torch.dtype) -> M:
    """The module with its tensors in `dtype` and in their own memory: one left in a mapped file keeps it all mapped."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype, copy=True)
    return module


def replace_each(layers: nn.ModuleList, pack: Callable[[nn.Module], nn.Module]) -> None:
    """Put in place of each layer what `pack` makes of it, a few at a time.

    Most of the kernels that rearrange a weight use one thread, whatever they are given.
    """

    def replace(number: int) -> None:
        with torch.no_grad():  # a setting of each thread's own
            layers[number] = pack(layers[number])
        _return_memory()

    with ThreadPoolExecutor(min(AT_ONCE, torch.get_num_threads())) as pool:
        for _ in pool.map(replace, sorted(range(len(layers)), key=str)):  # as files have them: 0, 1, 10, 11, …
            pass


def _return_memory() -> None:
    """Give freed memory back to the system: glibc keeps it between what stays, and packing would take it twice."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def flow_dtype(decoder: CodeDecoder) -> torch.dtype:
    """The type of a decoder's activations."""
    return decoder.final_norm.weight.dtype


def cache_dtype(decoder: CodeDecoder) -> torch.dtype:
    """The type of keys and values: 16 bits for weights of 8 too, if our kernel or the processor multiplies them."""
    if attends_natively(decoder):
        return torch.float32 if _in_full(decoder) else torch.float16
    return torch.bfloat16 if _multiplies(decoder, DigitsProduct) and can_pack_halves() else flow_dtype(decoder)


def row_dtype(decoder: CodeDecoder) -> torch.dtype:
    """The same of what rows have said themselves: 8 bits beside weights of 8, where our kernel attends."""
    if not attends_natively(decoder):
        return cache_dtype(decoder)
    whole = is_whole(cast(PackedDecoderLayer, decoder.stack.layers[0]).fc)
    return torch.int8 if whole else cache_dtype(decoder)


def attends_natively(decoder: CodeDecoder) -> bool:
    """Whether steps attend by our own kernel: on a CPU, if it takes heads of this width."""
    width = decoder.config.hidden_size // decoder.config.num_attention_heads
    near = decoder.final_norm.weight.device.type == "cpu"
    return near and native.attends(width) and _multiplies(decoder, Product)


def native_decoder(decoder: CodeDecoder) -> native.Decoder | None:
    """A decoder that `attends_natively` for our own kernels, if they have each part of its step."""
    layers = [cast(PackedDecoderLayer, layer).whole for layer in decoder.stack.layers]
    whole, head = [layer for layer in layers if layer is not None], decoder.lm_head
    product = head.inner if isinstance(head, HalfHead) else head
    if len(whole) < len(layers) or not isinstance(product, NativeProduct):
        return None
    stack = decoder.stack
    tables = stack.input_embeds_layer.weight, stack.position_embeds_layer.weight
    return native.Decoder(tables, whole, (stack.layer_norm, decoder.final_norm), product.times)


def _in_full(decoder: CodeDecoder) -> bool:
    """Whether a packed decoder's weights are float32."""
    fc = cast(PackedDecoderLayer, decoder.stack.layers[0]).fc
    return fc.times.dtype == torch.float32 if isinstance(fc, NativeProduct) else needs_company(fc, flow_dtype(decoder))


def least_rows(decoder: CodeDecoder) -> int:
    """How many rows a step must have for a row's result not to depend on their number."""
    products = *decoder.stack.layers[0].modules(), decoder.lm_head
    return FEW_ROWS if any(needs_company(part, flow_dtype(decoder)) for part in products) else 1


def least_queries(decoder: CodeDecoder) -> int:
    """How many rows must look at one prompt together for none to depend on their number."""
    return FEW_ROWS if cache_dtype(decoder) == torch.float32 else 1


def _multiplies(decoder: CodeDecoder, *kinds: type[Product]) -> bool:
    first = decoder.stack.layers[0]
    return isinstance(first, PackedDecoderLayer) and isinstance(first.fc, kinds)
