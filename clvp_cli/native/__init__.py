"""The step's own kernels in C, where they were built and the processor has AVX2; whoever asks has another way if not.

Owns the bindings; kernels.c says what is computed, build.py how it is compiled. float32 in and out, on the CPU. M rows.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

LIBRARY = Path(__file__).with_name("kernels.so")
STEP = 16  # inputs that the product takes at once
MOST_INPUTS = 8192  # whose sums fit
LANES = 8  # floats that a processor holds at once
MOST_WIDTH = 128  # of a head

Address, Count = ctypes.c_void_p, ctypes.c_int64


class _Prompt(ctypes.Structure):
    _fields_ = (("keys", Address), ("values", Address), ("length", Count), ("head", Count))


@cache
def kernels() -> ctypes.CDLL | None:
    """The kernels, or None without them: not built, another processor, or CLVP_NATIVE=0."""
    fits = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    if os.environ.get("CLVP_NATIVE") == "0" or not fits or not LIBRARY.is_file():
        return None
    library = ctypes.CDLL(str(LIBRARY))
    sizes = Count, Count, Count
    library.clvp_product.argtypes = (Address, *sizes, *[Address] * 5, ctypes.c_int)
    places = Address, Address, Count, Count, Address
    library.clvp_attend.argtypes = (Address, *sizes, *places, ctypes.POINTER(_Prompt), Address, Address, ctypes.c_int)
    return library


def multiplies(weight: Tensor) -> bool:
    """Whether `product` takes an int8 weight (out, in) of this shape; float16 needs whole LANES."""
    inputs = weight.shape[1]
    return kernels() is not None and weight.device.type == "cpu" and inputs % STEP == 0 and inputs <= MOST_INPUTS


def product(
    x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, residual: Tensor | None = None
) -> Tensor:
    """x (…, in) times a weight (out, in) + bias (out,) + residual (…, out).

    The weight is int8, and scale (out,) what a whole number counts in each output; rows of x are rounded to 14 bits of
    their largest. Or it is float16, without a scale. Weight, scale and bias are contiguous.
    """
    library = kernels()
    assert library is not None
    x = x.contiguous()
    made = x.new_empty(*x.shape[:-1], len(weight))
    rows, inputs = x.numel() // x.shape[-1], x.shape[-1]
    after = None if residual is None else residual.contiguous()
    addresses = weight.data_ptr(), _address(scale), _address(bias), _address(after), made.data_ptr()
    _done(library.clvp_product(x.data_ptr(), rows, inputs, len(weight), *addresses, torch.get_num_threads()))
    return made


def attends(width: int) -> bool:
    """Whether `attend` takes heads of this width."""
    return kernels() is not None and width % LANES == 0 and width <= MOST_WIDTH


class Prompts:
    """Of one layer, the keys (H, P, d) and values (H, P, d) of prompts in float16, and of each its positions in use.

    The tensors must outlive this.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], lengths: Sequence[int]) -> None:
        entries = [
            _Prompt(keys.data_ptr(), values.data_ptr(), length, keys.shape[1] * keys.shape[2])
            for (keys, values), length in zip(layers, lengths, strict=True)
        ]
        self.table = (_Prompt * len(entries))(*entries)


def attend(qkv: Tensor, cache: Tensor, lengths: Tensor, prompts: Prompts, of_row: Tensor) -> Tensor:
    """qkv (M, 3, H, d), queries scaled → what each query finds in its row's prompt and in its row (M, H, d).

    cache (2, M, H, L, d), float16, dense but for its rows: keys and values of each row, `lengths` (M,) of them in use,
    behind which this writes the new ones. of_row (M,): which of `prompts` a row continues.
    """
    library = kernels()
    assert library is not None
    qkv = qkv.contiguous()
    rows, _, heads, width = qkv.shape
    made = qkv.new_empty(rows, heads, width)
    keys, row, head = cache.data_ptr(), cache.stride(1), cache.stride(2)
    places = keys, keys + cache.stride(0) * cache.element_size(), row, head, lengths.data_ptr()
    sharing = prompts.table, of_row.data_ptr(), made.data_ptr()
    _done(library.clvp_attend(qkv.data_ptr(), rows, heads, width, *places, *sharing, torch.get_num_threads()))
    return made


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _done(failed: int) -> None:
    if failed:
        raise MemoryError("no memory for a step")
