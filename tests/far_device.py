"""A device that is not the CPU, without one: tensors say that they lie there and compute with their values here.

Under `far_device()` the meta device stands for a GPU. What a GPU refuses is refused: operations between here and there
(a number alone may come from here), and NumPy's view of what lies there. Values are real, so results can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

FAR = torch.device("meta")
CROSSING = ("_to_copy", "copy_")  # what may take tensors from here to there and back


class Far(torch.Tensor):
    """A tensor that lies far away; `near` has its values."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Far:
        made = torch.Tensor._make_wrapper_subclass(
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype, device=FAR
        )
        made.near = near
        return made

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """Not from there."""
        raise TypeError("far tensors are no arrays: use .cpu() first")

    def __getitem__(self, places: Any) -> Any:
        """Lists of places are made tensors here: on the meta device they would lose their numbers."""
        whole = places if isinstance(places, tuple) else (places,)
        return super().__getitem__(tuple(torch.tensor(p) if isinstance(p, list) else p for p in whole))

    def tolist(self) -> Any:
        """As numbers, which a GPU allows."""
        return self.near.tolist()

    @property
    def data(self) -> Any:
        """As a parameter's data is read and replaced."""
        return self.detach()

    @data.setter
    def data(self, value: Far) -> None:
        torch.Tensor.data.__set__(self, value)
        self.near = value.near

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the values, its results where a GPU would have them."""
    flat = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    far = {id(leaf.near): leaf for leaf in flat if isinstance(leaf, Far)}
    where = kwargs.get("device")
    crosses = any(name in str(func) for name in CROSSING)
    strangers = [leaf for leaf in flat if not isinstance(leaf, Far) and leaf.dim()]
    if "aten.index" in str(func) and isinstance(flat[0], Far):  # places may be told from here
        strangers = [leaf for leaf in strangers if leaf.dtype != torch.long]
    if far and strangers and not crosses:
        raise RuntimeError(f"{func}: tensors on two devices")
    if where is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    goes_far = (
        torch.device(where) == FAR
        if where is not None
        else (bool(far) and isinstance(flat[0], Far)) or (bool(far) and not crosses)
    )
    args, kwargs = tree_map_only(Far, lambda t: t.near, (args, kwargs))
    made = func(*args, **kwargs)
    if not goes_far:
        return made
    return tree_map_only(torch.Tensor, lambda t: far.get(id(t)) if id(t) in far else Far(t), made)


class Values(TorchDispatchMode):
    """Tensors that are made on the meta device have values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # in inference mode operations come whole
            made = func.decompose(*args, **(kwargs or {}))
        return compute(func, args, kwargs or {}) if made is NotImplemented else made


class Literals(TorchFunctionMode):
    """torch.tensor with a device never asks the mode above."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        where = kwargs.pop("device", None) if func is torch.tensor else None
        made = func(*args, **kwargs)
        return made if where is None else made.to(where)


@contextmanager
def far_device() -> Iterator[torch.device]:
    """The device that stands for a GPU while this lasts, in this thread."""
    with Literals(), Values():
        yield FAR
