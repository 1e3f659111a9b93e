"""Tensor files: safetensors headers read without torch, and tensors mapped from disk when asked for.

Owns what a safetensors file may look like and how its faults are told. Knows nothing of models, names or formats of
checkpoints; torch is imported only where tensors themselves are asked for.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..documents import short
from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

# Bytes of one element, by the name that safetensors gives the type.
ITEM_BYTES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
MAX_DIMS = 16
MAX_NAME = 300  # characters of a tensor's name
FLOAT_TYPES = ("F64", "F32", "F16", "BF16")
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
COPY_AGAIN = "the file is damaged or was cut short while copying: copy or fetch it again"


@dataclass(frozen=True)
class TensorInfo:
    """What a file says of one tensor: its name, type ("F32"), shape, and where its bytes lie (start, end)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, int] | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return self.numel * ITEM_BYTES[self.dtype]


class TensorStore(Protocol):
    """Named tensors somewhere on disk: a file, several shards, or a file read through a table of names."""

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """What is there, without its data."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """The files that hold the data."""
        ...

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Map the named tensors from disk; each call maps anew, so dropping the result gives the memory back."""
        ...


class SafetensorsFile:
    """One safetensors file. The header is read and checked on opening; raises CheckpointError naming the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.infos: dict[str, TensorInfo] = read_header(path)
        self.files: Sequence[Path] = (path,)

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Map the named tensors from the file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.path), framework="pt", device="cpu") as opened:
                return {name: opened.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path}: not readable: {error}", COPY_AGAIN) from None


class Shards:
    """Several files seen as one: each name lies in exactly one of them."""

    def __init__(self, stores: Sequence[TensorStore]) -> None:
        self.infos: dict[str, TensorInfo] = {}
        self.files: Sequence[Path] = [file for store in stores for file in store.files]
        self._owner: dict[str, TensorStore] = {}
        for store in stores:
            for name, info in store.infos.items():
                if name in self.infos:
                    raise CheckpointError(f"{store.files[0]}: {name} is in another file of this checkpoint too")
                self.infos[name], self._owner[name] = info, store

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Map the named tensors from the files that hold them."""
        wanted = list(names)
        found: dict[str, Tensor] = {}
        for store in {id(self._owner[name]): self._owner[name] for name in wanted}.values():
            found.update(store.tensors(name for name in wanted if self._owner[name] is store))
        return {name: found[name] for name in wanted}


def open_tensors(path: Path) -> TensorStore:
    """Open a file of tensors, safetensors or PyTorch's zip, told by its first bytes; raises CheckpointError."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise CheckpointError(f"{path}: not readable: not a file")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: not readable: {error.strerror}") from None
    if start[8:9] == b"{" or (path.suffix == ".safetensors" and start[:2] != b"PK"):
        return SafetensorsFile(path)
    from .pickles import PickleFile  # only now: it needs torch

    return PickleFile(path)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read and check the header of a safetensors file.

    Args:
        path: the file. Its tensors must lie within it, fill it, and not overlap.
    Returns:
        What the file holds, by name.
    Raises:
        CheckpointError: the file is truncated, damaged or no safetensors file.
    """
    header, data_bytes = _header_json(path)
    header.pop("__metadata__", None)
    infos = {name: _tensor_info(path, name, entry) for name, entry in header.items()}
    end = 0
    for info in sorted(infos.values(), key=lambda each: each.offsets or (0, 0)):
        start, stop = info.offsets or (0, 0)
        if start != end:
            raise CheckpointError(f"{path}: the bytes of {info.name} overlap another tensor's or leave a gap")
        end = stop
    if end != data_bytes:
        what = "truncated" if end > data_bytes else "longer than its header says"
        raise CheckpointError(f"{path}: {what}: {data_bytes} bytes of tensors, the header tells of {end}", COPY_AGAIN)
    return infos


def _header_json(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if length < 2 or length > min(MAX_HEADER_BYTES, size - 8):
                raise CheckpointError(f"{path}: no whole safetensors file ({size} bytes)", COPY_AGAIN)
            header = json.loads(file.read(length), object_pairs_hook=_unique)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: not readable: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: the safetensors header is damaged: {str(error)[:120]}", COPY_AGAIN) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the safetensors header is damaged: no mapping", COPY_AGAIN)
    return header, size - 8 - length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def is_plain(name: str) -> bool:
    """Whether a tensor's name is one that can be told in a line."""
    return len(name) <= MAX_NAME and name.isprintable()


def _tensor_info(path: Path, name: str, entry: Any) -> TensorInfo:
    if not is_plain(name):
        raise CheckpointError(f"{path}: the header's name {short(name)} makes no sense", COPY_AGAIN)
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    shape: Any
    offsets: Any
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    whole = all(
        isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
        for numbers in (shape, offsets)
    )
    if not whole or len(shape) > MAX_DIMS or len(offsets) != 2 or str(dtype) not in ITEM_BYTES:
        raise CheckpointError(f"{path}: the header's entry of {name} makes no sense", COPY_AGAIN)
    info = TensorInfo(name, str(dtype), tuple(shape), (offsets[0], offsets[1]))
    if (held := offsets[1] - offsets[0]) != info.nbytes:
        raise CheckpointError(f"{path}: {name}: {short(held)} bytes for a {dtype} of shape {short(shape)}")
    return info
