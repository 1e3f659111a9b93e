"""Which build of the kernels this processor runs, and how they are called.

Owns the C structures and the choice; `CLVP_NATIVE=0` leaves the kernels out, `CLVP_NATIVE=avx2` those for wider
registers.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .pages import room

log = logging.getLogger("clvp")

HERE = Path(__file__).parent
INTERFACE = 9  # as step.c numbers what it is called with
DEPTH = 1024  # inputs of a weight's part, as in kernels.h
AT_ONCE = 128  # rows that are laid while they are in a cache, whole blocks
LARGEST_HALF = torch.finfo(torch.float16).max
GROUP = {torch.int8: 4, torch.bfloat16: 2}  # inputs that are multiplied at once; else one
Address, Count = ctypes.c_void_p, ctypes.c_int64


class CWeight(ctypes.Structure):
    """A weight and its bias, and the tensors that they lie in."""

    kept: tuple[Tensor | None, ...]

    _fields_ = (
        *((name, Address) for name in ("numbers", "scale", "bias", "starts")),
        *((name, Count) for name in ("bits", "brain", "inputs", "outputs")),
    )


class CNorm(ctypes.Structure):
    """Layer normalisation."""

    _fields_ = (("weight", Address), ("bias", Address), ("eps", ctypes.c_float))


class CLayer(ctypes.Structure):
    """A decoder's layer."""

    _fields_ = (
        *((name, CNorm) for name in ("before_attention", "before_mlp")),
        *((name, CWeight) for name in ("qkv", "out", "fc", "proj")),
        ("heads", Count),
    )


class CDecoder(ctypes.Structure):
    """What a decoder's step goes through."""

    _fields_ = (
        *((name, Address) for name in ("codes", "positions")),
        *((name, Count) for name in ("vocabulary", "longest", "count")),
        ("layers", ctypes.POINTER(CLayer)),
        *((name, CNorm) for name in ("after_layers", "before_head")),
        ("head", CWeight),
    )


class CChoice(ctypes.Structure):
    """How a code is drawn."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("penalty", "temperature", "top_p")),
        *((name, Count) for name in ("top_k", "start", "stop", "least", "limit", "position")),
    )


class CRows(ctypes.Structure):
    """What rows draw by, and what is known of them."""

    _fields_ = tuple(
        (name, Address) for name in ("draws", "said", "ended", "codes", "counts", "last", "positions", "log_p")
    )


class CRmsNorm(ctypes.Structure):
    """Normalisation by the root of the mean square."""

    _fields_ = (("weight", Address), ("eps", ctypes.c_float), ("clamps", ctypes.c_int32))


class CEncoderLayer(ctypes.Structure):
    """An encoder's layer."""

    _fields_ = (
        *((name, CRmsNorm) for name in ("before_attention", "before_mlp")),
        *((name, CWeight) for name in ("qkv", "out", "fc1", "fc2")),
        ("heads", Count),
    )


class CSequences(ctypes.Structure):
    """Where sequences start, and how positions are turned."""

    _fields_ = (("starts", Address), ("count", Count), ("cosines", Address), ("sines", Address), ("half", Count))


class CPrompt(ctypes.Structure):
    """Keys and values of a prompt."""

    _fields_ = (("keys", Address), ("values", Address), *((name, Count) for name in ("length", "of_keys", "of_values")))


class CPlaces(ctypes.Structure):
    """Keys and values of rows and prompts."""

    _fields_ = (
        ("keys", Address),
        ("values", Address),
        *((name, Count) for name in ("bits", "row", "head", "block")),
        ("prompts", ctypes.POINTER(CPrompt)),
        ("of_row", Address),
    )


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers lie; NULL for none."""
    return None if tensor is None else tensor.data_ptr()


class _Bench(threading.local):
    """Where a thread prepares rows: what is freed again and again stays between what is kept."""

    def __init__(self) -> None:
        self.space = torch.empty(AT_ONCE * DEPTH * 4, dtype=torch.uint8)


_bench = _Bench()


def described(
    library: ctypes.CDLL, weight: Tensor, scale: Tensor | None, bias: Tensor | None, dtype: torch.dtype | None = None
) -> CWeight:
    """A weight (out, in), its scale and its bias, as kernels.h says, in `dtype` or its own. What is made owns them."""
    dtype = dtype or weight.dtype
    outputs, inputs = weight.shape
    fill, group = -outputs % library.clvp_block(), GROUP.get(dtype, 1)
    space = (outputs + fill) * inputs
    numbers = room(space, dtype) if dtype == torch.int8 else torch.empty(space, dtype=dtype)  # see pages.py
    for first in range(0, inputs, DEPTH):
        for row in range(0, outputs, AT_ONCE):
            part = weight[row : row + AT_ONCE, first : first + DEPTH]
            rows, depth = part.shape
            some = _bench.space[: part.numel() * dtype.itemsize].view(dtype).view(rows, depth).copy_(part)
            if dtype == torch.float16:
                some.clamp_(-LARGEST_HALF, LARGEST_HALF)
            place = numbers[first * (outputs + fill) + row * depth :]
            library.clvp_lay(address(some), rows, depth // group, group * dtype.itemsize, address(place))
    starts = None
    if dtype == torch.int8:
        sums = [part.sum(1, dtype=torch.int32) for part in torch.split(weight, DEPTH, dim=1)]
        starts = F.pad(torch.stack(sums).mul_(-64), (0, fill))
    kept = numbers, None if scale is None else F.pad(scale, (0, fill)), bias, starts
    made = CWeight(*map(address, kept), dtype.itemsize * 8, dtype == torch.bfloat16, inputs, outputs)
    made.kept = kept
    return made


@cache
def kernels() -> ctypes.CDLL | None:
    """The kernels, or None without them: not built, another processor, or CLVP_NATIVE=0."""
    asked = os.environ.get("CLVP_NATIVE")
    fits = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    narrow = _loaded("kernels.so") if fits and asked != "0" else None
    if narrow is None or asked == "avx2" or not narrow.clvp_can_be_wider():
        return narrow
    wide = _loaded("kernels_vnni.so")
    if wide is None:
        return narrow
    if not agree(narrow, wide):
        log.warning("the kernels for AVX512-VNNI compute something else here, so steps are slower: please tell us")
        return narrow
    return wide


def agree(one: ctypes.CDLL, other: ctypes.CDLL) -> bool:
    """Whether two builds make the same bits: of one row and of several, with something left over on every side."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, (9, 4144), generator=draw, dtype=torch.int8)
    scale, x = torch.rand(9, generator=draw), torch.randn(9, 4144, generator=draw)
    x[8, 0] = 100.0  # a row that takes 14 bits
    some = x[:1], x[:7], x
    return all(torch.equal(*(_product(each, rows, weight, scale) for each in (one, other))) for rows in some)


@cache
def has_brains() -> bool:
    """Whether the processor multiplies bfloat16 by AVX512-BF16, and the kernels do so rightly."""
    library = kernels()
    if library is None or not library.clvp_has_brains():
        return False
    draw = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, 1056, generator=draw).bfloat16() for rows in (7, 9))
    want = x.double() @ weight.double().t()
    if bool(((_product(library, x.float(), weight) - want).abs() <= 1e-4).all()):
        return True
    log.warning("the kernels for AVX512-BF16 compute something else here, so steps are slower: please tell us")
    return False


def _product(library: ctypes.CDLL, x: Tensor, weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """x (rows, in) times a weight (out, in), by one thread; zeros where that fails."""
    made = torch.zeros(len(x), len(weight))
    form = described(library, weight, scale, None)
    library.clvp_product(ctypes.addressof(form), x.data_ptr(), len(x), None, made.data_ptr(), 0, 1)
    return made


def _loaded(name: str) -> ctypes.CDLL | None:
    """The library of that name beside this file, if it is there and is called as it is here."""
    path = HERE / name
    if not path.is_file():
        return None
    try:
        library = ctypes.CDLL(str(path))
        found = ctypes.c_int.in_dll(library, "clvp_interface").value
    except (OSError, ValueError) as error:
        log.warning("the kernels could not be loaded, so steps are slower: %s", error)
        return None
    if found != INTERFACE:
        log.warning("the kernels are of another version, so steps are slower: install clvp again")
        return None
    library.clvp_lay.argtypes = (Address, Count, Count, Count, Address)
    last = Address, ctypes.c_int
    library.clvp_product.argtypes = (Address, Address, Count, Address, Address, ctypes.c_int, ctypes.c_int)
    library.clvp_attend.argtypes = (Address, Count, Count, Count, Address, Address, *last)
    library.clvp_encode.argtypes = (Address, Count, Address, *last)
    library.clvp_attend_all.argtypes = (Address, Count, Count, Address, ctypes.c_int, *last)
    library.clvp_rms_norm.argtypes = (Address, Address, Count, Count, *last)
    library.clvp_gate.argtypes = (Address, Count, Count, *last)
    library.clvp_rms_norm.restype = library.clvp_gate.restype = None
    library.clvp_choose.argtypes = (*(Address,) * 3, Count, Count, ctypes.c_int)
    library.clvp_step.argtypes = (*(Address,) * 5, Count, *last)
    return library
