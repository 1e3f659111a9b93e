"""How golden files are written: small, deterministic, readable without the reference systems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write tensors and arrays to a compressed .npz; float64 becomes float32, integers int32."""
    plain = {}
    for name, value in arrays.items():
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        elif array.dtype == np.int64:
            array = array.astype(np.int32)
        plain[name] = array
    np.savez_compressed(path, **plain)


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with float32 tensors as float16, each value kept exactly; buffers that float16 cannot hold stay."""
    small = {}
    for name, tensor in state.items():
        fits = tensor.dtype == torch.float32 and torch.equal(tensor.half().float(), tensor)
        small[name] = (tensor.half() if fits else tensor).detach().clone().contiguous()
    return small
