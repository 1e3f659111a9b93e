"""Modules made on the meta device, filled from a state: strictly, tensor by tensor, ready for inference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .layout import SCALES, Shape, raise_faults
from .rounded import widened

Module = TypeVar("Module", bound=nn.Module)
FILLERS = (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_)  # and everything in nn.init


class _Unfilled(TorchFunctionMode):
    """Skips filling: on the meta device it changes nothing, and the first fill costs 1.4 s of imports."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in FILLERS or getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


def build_empty(build: Callable[[], Module]) -> Module:
    """What `build` makes, with shapes and no memory: on the meta device, for `load_module` to fill."""
    with torch.device("meta"), _Unfilled():
        return build()


def load_module(
    module: nn.Module,
    state: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    where: str = "weights",
    keep_rounded: bool = False,
) -> nn.Module:
    """Fill a module made on the meta device, strictly, and make it ready for inference (eval, no gradients).

    Args:
        module: on the meta device; its state names and shapes must be exactly those of `state`.
        state: names and tensors. Handed in as an iterator, each is cast and dropped before the next is read, so no
            copy in the file's precision stands beside the cast one.
        dtype: what floating tensors become; None keeps the file's.
        device: where they go. Same type and CPU: nothing is copied, the file stays mapped.
        where: what error messages name.
        keep_rounded: leave weights in 8 bits as they are, their scales in a buffer `weight_scale` beside each, for
            packing; otherwise they are widened.
    Raises:
        CheckpointError: names are missing or unknown, shapes differ, or what computes is stored as integers.
    """
    state_of = module.state_dict()
    expected: dict[str, Shape] = {name: tuple(tensor.shape) for name, tensor in state_of.items()}
    floating = {name for name, tensor in state_of.items() if tensor.is_floating_point()}
    cast: dict[str, Tensor] = {}
    wrong: list[str] = []
    for name, tensor in state.items() if isinstance(state, Mapping) else state:
        shape = expected.get(name)
        if shape is not None and shape != tuple(tensor.shape):
            wrong.append(f"{name} {list(tensor.shape)}, not {list(shape)}")
        target = dtype if tensor.is_floating_point() else None
        cast[name] = tensor.to(device=device, dtype=target).contiguous()
        del tensor
    scales = {
        name: cast.pop(name + SCALES)
        for name, tensor in list(cast.items())
        if tensor.dtype == torch.int8 and name + SCALES in cast
    }
    if not keep_rounded:
        for name, scale in scales.items():
            cast[name] = widened(name, cast[name], scale).to(dtype or torch.float32)
    integers = [
        f"{name} {tensor.dtype}"
        for name, tensor in cast.items()
        if name in floating and name not in scales and not tensor.is_floating_point()
    ]
    missing, unknown = sorted(expected.keys() - cast.keys()), sorted(cast.keys() - expected.keys())
    raise_faults(where, {"missing": missing, "unknown": unknown, "misshapen": wrong, "not floating point": integers})
    module.requires_grad_(False).load_state_dict(cast, strict=True, assign=True)
    for name, scale in scales.items() if keep_rounded else ():
        module.get_submodule(name.rpartition(".")[0]).register_buffer("weight_scale", scale)
    return module.eval()
