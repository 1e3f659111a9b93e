"""Directories in the published format: config.json beside safetensors or pytorch_model.bin, whole or sharded.

Owns which files of a directory hold the weights. Names are already the layout's own, so there is no table here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from ..documents import read_json, short
from ..errors import CheckpointError
from .layout import listed
from .tensors import Shards, TensorStore, open_tensors

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
OLD_WEIGHTS = "pytorch_model.bin"
OLD_WEIGHTS_INDEX = "pytorch_model.bin.index.json"
CANDIDATES = (WEIGHTS, WEIGHTS_INDEX, OLD_WEIGHTS, OLD_WEIGHTS_INDEX)  # the first that is there is read


def weights_file(directory: Path) -> Path | None:
    """The file, or the index of files, that holds the weights of a published directory; None where there is none."""
    return next((directory / name for name in CANDIDATES if (directory / name).exists()), None)


def open_weights(path: Path) -> TensorStore:
    """Open a weights file or the shards that an index names; raises CheckpointError."""
    return open_index(path) if path.name.endswith(".index.json") else open_tensors(path)


def open_index(path: Path) -> TensorStore:
    """Open the shards named by an index; each must lie in its directory and hold just what the index says."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: no weight_map, which tells what file holds what")
    shards: dict[str, TensorStore] = {}
    for file in _distinct(weight_map.values()):
        shards[file] = _open_shard(path, _plain(path, file))
    for file, store in shards.items():
        promised = {name for name, where in weight_map.items() if where == file}
        off = sorted(promised ^ store.infos.keys())
        if off:
            raise CheckpointError(f"{path}: {file} holds other names than the index says: {listed(off)}")
    return Shards(list(shards.values()))


def _distinct(files: Iterable[object]) -> list[Any]:
    return list({repr(file): file for file in files}.values())  # by repr: JSON may hold what does not hash


def _plain(index: Path, file: object) -> str:
    """A shard's name, refused unless it is a bare file name: an index must not reach outside its directory."""
    if not isinstance(file, str) or not file or PurePosixPath(file).name != file or "\\" in file or file in (".", ".."):
        raise CheckpointError(f"{index}: refused: names the shard {short(file)}, which is not a file of this directory")
    return file


def _open_shard(index: Path, file: str) -> TensorStore:
    path = index.parent / file
    if not path.is_file():
        raise CheckpointError(f"{path}: missing: a shard that {index.name} names", "copy or fetch all shards")
    return open_tensors(path)
