"""PyTorch's own files (.pth, .bin): tensors out, and nothing in them ever executed.

Owns the checks before and after torch.load: the archive stores its entries uncompressed and within the file, the
pickle builds tensors alone, and no tensor claims more than its storage. Knows nothing of the models inside.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..documents import short
from ..errors import CheckpointError
from .tensors import COPY_AGAIN, TensorInfo, is_plain

MAX_PICKLE_BYTES = 2 * 2**20  # the pickle holds names and shapes alone; the real ones are below 1 MB
MAX_TUPLE = 10_000  # values in one tuple, those of the tuples in it included: the real ones hold a dozen
WRAPPERS = ("model", "state_dict", "model_state_dict", "module", "weights", "ema")  # where trainers put the state
REFUSED = "refused: {what}; nothing in it was executed"
CONVERT = "have its source re-save the bare tensors (torch.save(model.state_dict(), …)), or give a safetensors file"
DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class PickleFile:
    """One .pth or .bin file, checked on opening; raises CheckpointError naming the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: Sequence[Path] = (path,)
        check_archive(path)
        state = _load(path)
        self.infos: dict[str, TensorInfo] = {
            name: TensorInfo(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in state.items()
        }

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Map the named tensors from the file."""
        state = _load(self.path)
        return {name: state[name] for name in names}


def check_archive(path: Path) -> None:
    """Raise CheckpointError unless `path` is a PyTorch zip whose entries are stored plainly and within the file."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start.startswith(b"PK"):
        raise CheckpointError(*_not_a_zip(path, start))
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: truncated or damaged: {error}", COPY_AGAIN) from None
    pickles = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise CheckpointError(f"{path}: a zip, but none that PyTorch wrote")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(f"{path}: " + REFUSED.format(what="its entries are compressed"), CONVERT)
    if sum(member.file_size for member in members) > path.stat().st_size or pickles[0].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(f"{path}: " + REFUSED.format(what="its entries claim more than the file holds"), CONVERT)
    try:
        _check_tuples(path, _stored(path, pickles[0]))
    except (ValueError, IndexError, KeyError, OSError, struct.error) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: truncated or damaged: its pickle makes no sense", COPY_AGAIN) from None


def _stored(path: Path, member: zipfile.ZipInfo) -> bytes:
    """The bytes of an uncompressed entry; its checksum is PyTorch's to look at, which may leave it out."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
        file.seek(name + extra, os.SEEK_CUR)
        return file.read(member.file_size)


def _check_tuples(path: Path, data: bytes) -> None:
    """Raise CheckpointError where a tuple holds too much, counted as hashing it as a key would, which could not end."""
    stack: list[int] = []  # for each value: 1, or what a tuple holds
    marks: list[int] = []
    memo: dict[Any, int] = {}
    for opcode, arg, _ in pickletools.genops(data):
        name, before = opcode.name, opcode.stack_before
        if name == "MARK":
            marks.append(len(stack))
        elif name.endswith("PUT") or name == "MEMOIZE":
            memo[len(memo) if arg is None else arg] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[arg])
        else:
            below = before.index(pickletools.markobject) if pickletools.markobject in before else len(before)
            start = (marks.pop() if below < len(before) else len(stack)) - below
            if start < 0:
                raise IndexError
            held = 1 + sum(stack[start:]) if "TUPLE" in name else 1
            if held > MAX_TUPLE:
                raise CheckpointError(f"{path}: " + REFUSED.format(what="it holds more than tensors"), CONVERT)
            stack[start:] = [held] * len(opcode.stack_after)


def _not_a_zip(path: Path, start: bytes) -> tuple[str, str]:
    """The message and hint for a file that is no zip, by its first bytes."""
    resave = "re-save it with a PyTorch of 1.6 or later, or give a safetensors file"
    if start[257:262] == b"ustar":
        return f"{path}: " + REFUSED.format(what="PyTorch's tar format of before 0.2"), resave
    if start[:1] == b"\x80":
        return f"{path}: " + REFUSED.format(
            what="a bare pickle (PyTorch's format of before 1.6, or none at all)"
        ), resave
    if start.startswith(b"version https://git-lfs"):
        return f"{path}: a git-lfs pointer, not the weights", "fetch the file itself: git lfs pull"
    if start.lstrip()[:1] == b"<":
        return f"{path}: a web page, not weights", "download the file itself"
    return f"{path}: neither safetensors nor a PyTorch file", COPY_AGAIN


def _load(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path}: " + REFUSED.format(what="it holds more than tensors"), CONVERT) from None
    except Exception as error:  # a damaged file meets every kind in the library
        if "TorchScript" in str(error):
            raise CheckpointError(f"{path}: " + REFUSED.format(what="it holds a program"), CONVERT) from None
        first_line = (str(error) or type(error).__name__).partition("\n")[0][:200]
        raise CheckpointError(f"{path}: truncated or damaged: {first_line}", COPY_AGAIN) from None
    state = _unwrap(path, content)
    _check_storage(path, state)
    return state


def _unwrap(path: Path, content: Any) -> dict[str, Tensor]:
    """The state itself, out of the wrappings trainers put around it."""
    for _ in WRAPPERS:
        if not isinstance(content, Mapping) or any(isinstance(value, Tensor) for value in content.values()):
            break
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path}: holds no mapping from names to tensors", CONVERT)
    odd = [
        short(name)
        for name, value in content.items()
        if not (isinstance(value, Tensor) and isinstance(name, str) and is_plain(name))
    ]
    if odd:
        raise CheckpointError(f"{path}: {odd[0]} is no tensor ({len(odd)} such entries)", CONVERT)
    wrapped = all(name.startswith("module.") for name in content)  # what DataParallel puts before each name
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in content.items()}


def _check_storage(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where a tensor claims more than its storage, or the storages more than the file."""
    storages: dict[int, int] = {}
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.dtype not in DTYPE_NAMES or tensor.device.type != "cpu":
            raise CheckpointError(f"{path}: {name} is of a kind not read here ({tensor.dtype}, {tensor.layout})")
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = max(storage.nbytes(), storages.get(storage.data_ptr(), 0))
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise CheckpointError(f"{path}: {name} claims {tuple(tensor.shape)}, more than its storage holds", CONVERT)
    if sum(storages.values()) > path.stat().st_size:
        raise CheckpointError(f"{path}: " + REFUSED.format(what="its tensors claim more than the file holds"), CONVERT)
