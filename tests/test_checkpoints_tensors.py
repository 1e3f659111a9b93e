"""Safetensors files: read without torch, and refused in one line where they are damaged."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clvp_cli.checkpoints.tensors import SafetensorsFile, Shards, open_tensors, read_header
from clvp_cli.errors import CheckpointError


def written(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_header_tells_names_types_and_shapes(tmp_path: Path) -> None:
    """The header alone gives every tensor's type, shape and size."""
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    infos = read_header(tmp_path / "x.safetensors")
    assert (infos["a"].dtype, infos["a"].shape, infos["a"].nbytes) == ("F32", (2, 3), 24)
    assert (infos["b"].dtype, infos["b"].shape, infos["b"].numel) == ("BF16", (), 1)


def test_tensors_are_those_written(tmp_path: Path) -> None:
    """What is mapped from disk is what was saved, and only what was asked for."""
    state = {"a": torch.randn(4, 5), "b": torch.arange(3)}
    save_file(state, tmp_path / "x.safetensors")
    read = SafetensorsFile(tmp_path / "x.safetensors").tensors(["a"])
    assert list(read) == ["a"]
    assert torch.equal(read["a"], state["a"])


@pytest.mark.parametrize("kept", [0, 4, 8, 40, -1])
def test_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    """A file cut anywhere is refused on opening, by name."""
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        open_tensors(path)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": entry(0, 8, [1])}, bytes(8)),
        ({"a": entry(0, 4, [1], "F33")}, bytes(4)),
        ({"a": entry(0, 4, [-1])}, bytes(4)),
        ({"a": entry(0, 4, [True])}, bytes(4)),  # type: ignore[list-item]
        ({"a": entry(4, 8, [1])}, bytes(8)),
        ({"a": entry(0, 8, [2]), "b": entry(4, 8, [1])}, bytes(8)),
        ({"a": entry(0, 4, [1])}, bytes(12)),
        ({"a": entry(0, 4 << 60, [1 << 60])}, bytes(8)),
        ({"a": 1}, b""),
        ([], b""),
        (b'{"a": ', b""),
        (b"{" + b"[" * 100_000, b""),
        (b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":1}', bytes(4)),
        (b"\xff\xfe{}", b""),
        ({"a": entry(0, 4, [1] * 10**5 + [2])}, bytes(4)),
        ({"a": entry(0, 4, [10**4000])}, bytes(4)),
        ({"a": entry(0, 10**4000, [1])}, bytes(4)),
        ({"a": entry(0, 10**4000, [10**4000 // 4])}, bytes(4)),
        ({"a": entry(0, 4, [1] * 10**5)}, bytes(4)),
        ({"x" * 10**6: entry(0, 4, [1])}, bytes(4)),
        ({"a\nb": entry(0, 4, [1])}, bytes(4)),
        ({"\ud800": entry(0, 4, [1])}, bytes(4)),
    ],
)
def test_senseless_header_is_refused(tmp_path: Path, header: object, data: bytes) -> None:
    """A header that contradicts itself or the file is an error that names the file, before anything is allocated."""
    with pytest.raises(CheckpointError, match=r"x\.safetensors") as caught:
        read_header(written(tmp_path / "x.safetensors", header, data))
    assert len(caught.value.message) < len(str(tmp_path)) + 300 and "\n" not in caught.value.message


def test_header_of_absurd_length_is_refused(tmp_path: Path) -> None:
    """A length beyond the file is told at once."""
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        read_header(tmp_path / "x.safetensors")


def test_name_in_two_shards_is_refused(tmp_path: Path) -> None:
    """A tensor that two files claim is an error."""
    for name in ("1", "2"):
        save_file({"a": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="a is in another file"):
        Shards([SafetensorsFile(tmp_path / f"{name}.safetensors") for name in ("1", "2")])


def test_missing_file_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    """A path that is not there is told by name."""
    with pytest.raises(CheckpointError, match="no such file"):
        open_tensors(tmp_path / "x.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path, tmp_path / "pipe.safetensors"):
        with pytest.raises(CheckpointError, match="not readable"):
            open_tensors(path)


def test_opening_a_published_model_loads_no_torch(tmp_path: Path) -> None:
    """Describing a safetensors directory needs no torch."""
    from clvp_cli.checkpoints.random import random_directory

    random_directory(tmp_path / "m")
    program = (
        "import sys; from pathlib import Path; from clvp_cli.checkpoints.info import describe;"
        "assert describe(Path(sys.argv[1]))['parameters']['total'] == 1992131; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "m")], check=True)
