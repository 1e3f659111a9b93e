"""Writing safetensors files tensor by tensor, so that a model larger than memory can be written.

Owns the file format and sharding. Knows nothing of models or of where the tensors come from.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError
from .published import WEIGHTS, WEIGHTS_INDEX
from .tensors import ITEM_BYTES, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

Produce = Callable[[str], "Tensor"]
METADATA = {"format": "pt"}  # readers of the published format insist on it


def write_sharded(
    directory: Path, infos: Mapping[str, TensorInfo], produce: Produce, max_shard_bytes: int
) -> list[Path]:
    """Write all tensors into `directory`: one file, or shards of at most `max_shard_bytes` and their index.

    Args:
        infos: name, type and shape of every tensor to be written.
        produce: gives the tensor of a name, cast to the type said in `infos`; called once a name, then dropped.
        max_shard_bytes: a single tensor above it gets a shard of its own.
    Returns:
        The weight files, the index left out.
    Raises:
        OutputError: the disk is full, or the directory cannot be written.
    """
    shards = split(infos, max_shard_bytes)
    if len(shards) == 1:
        write_file(directory / WEIGHTS, shards[0], produce)
        return [directory / WEIGHTS]
    files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        write_file(directory / file, shard, produce)
    total = sum(info.nbytes for info in infos.values())
    weight_map = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / WEIGHTS_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [directory / file for file in files]


def split(infos: Mapping[str, TensorInfo], max_shard_bytes: int) -> list[dict[str, TensorInfo]]:
    """Split names, in order, into runs of at most that many bytes."""
    shards: list[dict[str, TensorInfo]] = [{}]
    held = 0
    for name, info in infos.items():
        if shards[-1] and held + info.nbytes > max_shard_bytes:
            shards.append({})
            held = 0
        shards[-1][name] = info
        held += info.nbytes
    return shards


def write_file(path: Path, infos: Mapping[str, TensorInfo], produce: Produce) -> None:
    """Write one safetensors file; wide types first, then by name, so that every tensor is aligned to its type."""
    order = sorted(infos.values(), key=lambda info: (-ITEM_BYTES[info.dtype], info.name))
    header: dict[str, object] = {"__metadata__": METADATA}
    end = 0
    for info in order:
        header[info.name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [end, end + info.nbytes],
        }
        end += info.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for info in order:
                file.write(_bytes(produce(info.name), info))
    except OSError as error:
        raise OutputError(
            f"{path}: not written: {error.strerror}", "free some space, or choose another place"
        ) from None


def _bytes(tensor: Tensor, info: TensorInfo) -> memoryview:
    import torch

    from .pickles import DTYPE_NAMES

    if tuple(tensor.shape) != info.shape:
        raise ValueError(f"{info.name}: {tuple(tensor.shape)} where {info.shape} was announced")
    types = {name: dtype for dtype, name in DTYPE_NAMES.items()}
    flat = tensor.detach().to("cpu", types[info.dtype]).contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data
