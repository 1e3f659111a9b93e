"""Memory for what every step reads, in large pages where the system has them: fewer addresses are to be translated.

For weights of 8 bits, and what rows keep: larger weights would wait longer for their pages, which virtual machines are
slow to give, than a short run gains by them. Weights share slabs, for most are smaller than they should be to have
pages of their own; a slab is freed with the last of them. Linux alone gives such pages to who asks; elsewhere, tensors
are as PyTorch makes them.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

PAGE = 2**21  # bytes of a large page
SLAB = 32 * PAGE
LINE = 64  # bytes with which every tensor begins anew


class _Slab:
    """The slab that is being filled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # layers are packed by several threads
        self.left = torch.empty(0, dtype=torch.uint8)

    def take(self, size: int) -> Tensor:
        """So many bytes of it, of a new one if they do not fit."""
        size = -(-size // LINE) * LINE
        if size > SLAB // 2:
            return _mapped(size)
        with self.lock:
            if size > len(self.left):
                self.left = _mapped(SLAB)
            taken, self.left = self.left[:size], self.left[size:]
        return taken


_slab = _Slab()


def room(count: int, dtype: torch.dtype) -> Tensor:
    """So many numbers in the CPU's memory, not set."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(count, dtype=dtype)
    size = count * dtype.itemsize
    return _slab.take(size)[:size].view(dtype)


def apart(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The same of this shape, for itself: what is not needed for as long as weights are."""
    size = math.prod(shape) * dtype.itemsize
    large = hasattr(mmap, "MADV_HUGEPAGE") and size >= PAGE
    return _mapped(size).view(dtype).view(shape) if large else torch.empty(shape, dtype=dtype)


def _mapped(size: int) -> Tensor:
    """So many bytes that begin with a large page, or as PyTorch gives them where the system has none."""
    try:
        space = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        space.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        return torch.empty(size, dtype=torch.uint8)
    whole = torch.frombuffer(space, dtype=torch.uint8)
    return whole[-whole.data_ptr() % PAGE :][:size]
