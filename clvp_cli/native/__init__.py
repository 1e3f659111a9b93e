"""Kernels in C for steps and encoders, where they were built and the processor has AVX2; else there is another way.

Owns the bindings; kernels.h says what is computed, build.py how it is compiled, loading.py which build runs. float32 in
and out, on the CPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import loading
from .loading import (
    DEPTH,
    CChoice,
    CDecoder,
    CEncoderLayer,
    CLayer,
    CNorm,
    CPlaces,
    CPrompt,
    CRmsNorm,
    CRows,
    CSequences,
    address,
    described,
    kernels,
)

__all__ = [
    "ABREAST", "COUNTS", "FLOATS", "LANES", "MOST_KEPT", "STEP", "Attention", "Choice", "Decoder", "EncoderLayer",
    "EncoderStack", "Layer", "Places", "Prompt", "RmsNorm", "Rows", "Sequences", "Weight", "attends", "gated",
    "has_brains", "is_outdone", "is_wide", "kernels", "multiplies", "takes",
]  # fmt: skip

STEP = 16  # inputs, whole numbers, of which there is a multiple
BRAIN_STEP = 32  # of inputs in bfloat16
LANES = 8  # floats that a processor holds at once
MOST_WIDTH = 128  # of a head
MOST_KEPT = 256  # codes that one is drawn from
ABREAST = 16  # positions whose whole numbers lie together
COUNTS = 4  # bytes behind a position's whole numbers: what one of them counts
FLOATS = (torch.float16, torch.float32)


def is_wide() -> bool:
    """Whether the kernels are those for AVX512-VNNI, which multiply twice as many whole numbers at once."""
    library = kernels()
    return library is not None and library.clvp_block() > LANES


def has_brains() -> bool:
    """Whether they multiply bfloat16, by AVX512-BF16."""
    return kernels() is not None and loading.has_brains()


def is_outdone() -> bool:
    """Whether oneDNN's products in float32 use registers twice as wide, and these do not."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and not is_wide()


def multiplies(dtype: torch.dtype, inputs: int) -> bool:
    """Whether `Weight` takes numbers of that type, so many inputs of them."""
    if dtype == torch.bfloat16:
        return inputs % BRAIN_STEP == 0 and has_brains()
    if dtype == torch.int8:
        return inputs % STEP == 0 and kernels() is not None
    return inputs % LANES == 0 and dtype in FLOATS and kernels() is not None


def takes(*widths: int) -> bool:
    """Whether what is done with rows of these widths, as normalising them, is done here, and is faster so."""
    return kernels() is not None and not is_outdone() and all(width % LANES == 0 for width in widths)


class Weight:
    """A weight (out, in) that rows are multiplied with, its bias (out,) added; all contiguous.

    The weight is int8, and scale (out,) what a whole number counts in each output; rows are rounded to 8 bits of their
    largest, or to 14 where that is far above the others. Or it is one of FLOATS, without a scale; or bfloat16, to which
    rows are rounded then. What is kept is a copy, in `dtype` if one is given; in float16, what is too large for it is
    the largest that it has.
    """

    def __init__(
        self, weight: Tensor, scale: Tensor | None, bias: Tensor | None, dtype: torch.dtype | None = None
    ) -> None:
        self.dtype = dtype or weight.dtype
        self.outputs, self.inputs = weight.shape
        self.described = described(_built(), weight, scale, bias, dtype)
        self.address = ctypes.addressof(self.described)

    def __call__(self, x: Tensor, residual: Tensor | None = None, *, gelu: bool = False) -> Tensor:
        """x (…, in) → (…, out), onto a residual (…, out); with `gelu`, if out is whole LANES, GELU by tanh of that."""
        assert x.shape[-1] == self.inputs and x.dtype == torch.float32
        x = x.contiguous()
        made = x.new_empty(*x.shape[:-1], self.outputs)
        after = None if residual is None else residual.contiguous()
        given = self.address, x.data_ptr(), x.numel() // self.inputs, address(after)
        _done(_built().clvp_product(*given, made.data_ptr(), gelu, torch.get_num_threads()))
        return made


def attends(width: int) -> bool:
    """Whether `Attention` takes heads of this width."""
    return kernels() is not None and width % LANES == 0 and width <= MOST_WIDTH


class Prompt:
    """A layer's keys and values (H, P, d) of a prompt, of one of FLOATS, of which `length` positions are in use.

    What is kept is a copy, laid as weights that queries are multiplied with, and what these weigh.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        block, width = _built().clvp_block(), keys.shape[-1]
        columns = F.pad(keys[:, :length], (0, 0, 0, -length % block))
        rows = F.pad(values[:, :length], (0, -width % block, 0, -length % LANES))
        columns, rows = columns.view(len(keys), -1, block, width), rows.view(*rows.shape[:2], -1, block)
        parts = [part.transpose(1, 2).flatten(1) for part in torch.split(rows, DEPTH, dim=1)]
        self.kept = columns.transpose(2, 3).contiguous(), torch.cat(parts, dim=1)
        places = map(address, self.kept)
        self.described = CPrompt(*places, length, *(part.stride(0) * part.itemsize for part in self.kept))


class Attention:
    """One layer of a step: a prompt's positions and a row's own in one softmax.

    Args:
        cache: (2, rows, H, chunks, ABREAST · d), keys and values of each row, of one of FLOATS; or whole numbers of 8
            bits, ABREAST · (d + COUNTS), as kept.h says. Chunks are dense, and may lie anywhere.
        prompts: of the same type; in float16 beside whole numbers.
        of_row: (rows,) the number of the prompt that a row continues.
    """

    def __init__(self, cache: Tensor, prompts: Sequence[Prompt], of_row: Tensor) -> None:
        assert cache.stride(-1) == 1
        size_of = cache.itemsize
        shared = (CPrompt * len(prompts))(*(prompt.described for prompt in prompts))
        self.kept = cache, prompts, of_row
        values, *strides = (stride * size_of for stride in cache.stride()[:4])
        start = cache.data_ptr()
        self.described = CPlaces(start, start + values, size_of * 8, *strides, shared, of_row.data_ptr())
        self.address = ctypes.addressof(self.described)

    def __call__(self, qkv: Tensor, lengths: Tensor) -> Tensor:
        """qkv (n, 3, H, d) of the first rows, queries scaled → what each query finds (n, H, d).

        The new keys and values are written behind the `lengths` (n,) that each row has.
        """
        assert qkv.dtype == torch.float32
        qkv = qkv.contiguous()
        rows, _, heads, width = qkv.shape
        made = qkv.new_empty(rows, heads, width)
        given = qkv.data_ptr(), rows, heads, width, self.address, lengths.data_ptr()
        _done(_built().clvp_attend(*given, made.data_ptr(), torch.get_num_threads()))
        return made


class Layer:
    """A decoder's layer: x + attention(norm x), then x + mlp(norm x).

    Its activation is GELU by tanh, its norms have weights and biases in float32; D is `heads` times a width of heads
    that `attends` takes.
    """

    def __init__(self, norms: Sequence[nn.LayerNorm], weights: Sequence[Weight], heads: int) -> None:
        """`norms` before attention and MLP; `weights` of q, k and v together, of out, and of the MLP's two."""
        self.kept = norms, weights
        self.described = CLayer(*map(_described, norms), *(weight.described for weight in weights), heads)


class Places:
    """Where the keys and values of a decoder's layers are, one `Attention` for each."""

    def __init__(self, attentions: Sequence[Attention]) -> None:
        self.kept = attentions
        self.described = (CPlaces * len(attentions))(*(each.described for each in attentions))
        self.address = ctypes.addressof(self.described)

    def __len__(self) -> int:
        return len(self.kept)


class Decoder:
    """All of a decoder, for one code of each row: tables of vectors, layers of one shape, norms, a head."""

    def __init__(
        self, tables: Sequence[Tensor], layers: Sequence[Layer], norms: Sequence[nn.LayerNorm], head: Weight
    ) -> None:
        """`tables` of codes (V, D) and positions (longest, D), float32; `norms` after layers and before the head."""
        assert all(table.dtype == torch.float32 and table.is_contiguous() for table in tables)
        self.kept = tables, layers, norms, head
        self.outputs = head.outputs
        given = *map(address, tables), *map(len, tables), len(layers)
        in_turn = (CLayer * len(layers))(*(layer.described for layer in layers))
        self.described = CDecoder(*given, in_turn, *map(_described, norms), head.described)

    def __call__(self, codes: Tensor, positions: Tensor, places: Places, lengths: Tensor) -> Tensor:
        """Codes of the first rows (n, 1) at their positions (n, 1) → logits (n, V) of the next.

        Keys and values are written as each `Attention` would, behind the `lengths` (n,) that each row has. IndexError
        for a code or a position that no table has.
        """
        assert codes.dtype == positions.dtype == lengths.dtype == torch.int64 and len(places) == self.described.count
        codes, positions, rows = codes.contiguous(), positions.contiguous(), len(codes)
        made = torch.empty(rows, self.outputs)
        given = ctypes.addressof(self.described), places.address, lengths.data_ptr(), codes.data_ptr()
        _done(_built().clvp_step(*given, positions.data_ptr(), rows, made.data_ptr(), torch.get_num_threads()))
        return made


class Choice:
    """How the next code of each row is drawn: at most MOST_KEPT of the most probable, and of these a mass of top_p.

    `start` is never drawn if it is not below 0, nor is `stop` by rows whose codes so far are fewer than `least`; a row
    ends with `stop`, or with its code number `limit`. The position of its first code is `position`.
    """

    def __init__(
        self,
        *,
        penalty: float,
        temperature: float,
        top_p: float,
        top_k: int,
        start: int,
        stop: int,
        least: int,
        limit: int,
        position: int,
    ) -> None:
        assert 0 < top_k <= MOST_KEPT
        self.described = CChoice(penalty, temperature, top_p, top_k, start, stop, least, limit, position)


class Rows:
    """What rows have said and draw by, in tensors that stay where they are.

    Args:
        draws: (rows, limit) from 0 to 1, in float64.
        said, ended: (rows, V) and (rows,), bool.
        codes, counts, last, positions: (rows, limit), (rows,), (rows, 1) and (rows, 1), int64: all codes so far, how
            many these are, the last one and its position.
        log_p: (rows,) the sum of log p of all, in float64, under the logits as they are.
    """

    def __init__(
        self,
        *,
        draws: Tensor,
        said: Tensor,
        ended: Tensor,
        codes: Tensor,
        counts: Tensor,
        last: Tensor,
        positions: Tensor,
        log_p: Tensor,
    ) -> None:
        self.kept = draws, said, ended, codes, counts, last, positions, log_p
        assert all(tensor.is_contiguous() for tensor in self.kept)
        self.described = CRows(*map(address, self.kept))

    def draw(self, choice: Choice, logits: Tensor) -> None:
        """Let the first n rows say a code that they draw from logits (n, V)."""
        assert logits.is_contiguous() and logits.dtype == torch.float32
        count, codes = logits.shape
        given = ctypes.addressof(choice.described), ctypes.addressof(self.described), logits.data_ptr(), count, codes
        _done(_built().clvp_choose(*given, min(count, torch.get_num_threads())))


class RmsNorm:
    """x / rms(x) times a weight (D,): `eps` is within the root, or the least that it is where it `clamps`."""

    def __init__(self, weight: Tensor, eps: float, *, clamps: bool) -> None:
        self.kept = weight
        self.described = CRmsNorm(address(weight), eps, clamps)

    def __call__(self, x: Tensor) -> Tensor:
        """x (…, D) → the same shape; D is whole LANES."""
        assert x.dtype == torch.float32
        x = x.contiguous()
        made, width = torch.empty_like(x), x.shape[-1]
        given = ctypes.addressof(self.described), x.data_ptr(), x.numel() // width, width, made.data_ptr()
        _built().clvp_rms_norm(*given, torch.get_num_threads())
        return made


def gated(both: Tensor) -> Tensor:
    """Values and gates (…, 2 · I) → values times GELU of gates (…, I), whole LANES."""
    assert both.dtype == torch.float32
    both = both.contiguous()
    width = both.shape[-1] // 2
    made = both.new_empty(*both.shape[:-1], width)
    _built().clvp_gate(both.data_ptr(), made.numel() // width, width, made.data_ptr(), torch.get_num_threads())
    return made


class Sequences:
    """Sequences one behind the other, and how their positions are turned.

    Args:
        lengths: how many positions each has.
        cosines, sines: (the longest, k), of the angles by which numbers i and i + k of a head's queries, keys and
            values turn; k may be 0.
    """

    def __init__(self, lengths: Sequence[int], cosines: Tensor, sines: Tensor) -> None:
        assert len(cosines) >= max(lengths) and cosines.shape == sines.shape
        self.positions = sum(lengths)
        self.kept = torch.tensor((0, *lengths)).cumsum(0), cosines.contiguous(), sines.contiguous()
        at, *turns = map(address, self.kept)
        self.described = CSequences(at, len(lengths), *turns, cosines.shape[1])
        self.address = ctypes.addressof(self.described)

    def attend(self, qkv: Tensor, *, whole: bool = False) -> Tensor:
        """qkv (Σ lengths, 3, H, d), queries scaled → what each finds in all of its sequence (Σ lengths, H, d).

        With `whole`, keys have 8 bits and queries are rounded as rows beside weights of 8 are, if d is whole STEPs.
        """
        assert qkv.dtype == torch.float32 and len(qkv) == self.positions
        qkv = qkv.contiguous()
        _, _, heads, width = qkv.shape
        made = qkv.new_empty(len(qkv), heads, width)
        given = qkv.data_ptr(), heads, width, self.address, whole, made.data_ptr()
        _done(_built().clvp_attend_all(*given, torch.get_num_threads()))
        return made


class EncoderLayer:
    """An encoder's layer: x + attention(norm x), then x + mlp(norm x), over whole sequences.

    Its MLP takes values times GELU of gates; D is `heads` times a width of heads that `attends` takes.
    """

    def __init__(self, norms: Sequence[RmsNorm], weights: Sequence[Weight], heads: int) -> None:
        """`norms` before attention and MLP; `weights` of q, k and v together, of out, and of the MLP's two."""
        self.kept = norms, weights
        both = (norm.described for norm in norms)
        self.described = CEncoderLayer(*both, *(weight.described for weight in weights), heads)


class EncoderStack:
    """Layers of one shape, one after another in one call, for all positions of sequences."""

    def __init__(self, layers: Sequence[EncoderLayer]) -> None:
        self.kept = layers
        self.layers = (CEncoderLayer * len(layers))(*(layer.described for layer in layers))

    def __call__(self, x: Tensor, sequences: Sequences) -> Tensor:
        """x (positions of all, D) → the same shape."""
        assert x.dtype == torch.float32 and len(x) == sequences.positions
        made = x.clone(memory_format=torch.contiguous_format)
        given = ctypes.addressof(self.layers), len(self.layers), sequences.address, made.data_ptr()
        _done(_built().clvp_encode(*given, torch.get_num_threads()))
        return made


def _built() -> ctypes.CDLL:
    library = kernels()
    assert library is not None
    return library


def _described(norm: nn.LayerNorm) -> CNorm:
    return CNorm(address(norm.weight), address(norm.bias), norm.eps)


def _done(failed: int) -> None:
    if failed > 1:
        raise IndexError("a code or a position that the decoder has no vector for")
    if failed:
        raise MemoryError("no memory for a step")
