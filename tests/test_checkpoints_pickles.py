"""PyTorch's files: tensors come out, and nothing in a file is ever executed."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from clvp_cli.checkpoints.pickles import PickleFile
from clvp_cli.checkpoints.tensors import open_tensors
from clvp_cli.errors import CheckpointError


class Trap:
    """Unpickled by anything careless, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def rewritten(source: Path, target: Path, compression: int = zipfile.ZIP_STORED, **content: bytes) -> Path:
    """A copy of a zip with some entries (by the end of their names) replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for member in old.infolist():
            new.writestr(
                member.filename, content.get(member.filename.rpartition("/")[2].replace(".", "_"), old.read(member))
            )
    return target


def test_plain_state_is_read(tmp_path: Path) -> None:
    """A saved state dict gives its tensors."""
    state = {"a.weight": torch.randn(3, 2), "b": torch.tensor(1.0)}
    torch.save(state, tmp_path / "x.pth")
    store = open_tensors(tmp_path / "x.pth")
    assert store.infos["a.weight"].shape == (3, 2)
    assert torch.equal(store.tensors(["a.weight"])["a.weight"], state["a.weight"])


@pytest.mark.parametrize("wrap", ["model", "state_dict", "weights"])
def test_wrapped_state_is_unwrapped(tmp_path: Path, wrap: str) -> None:
    """A state that a trainer put under a usual key, or behind DataParallel's prefix, is found."""
    torch.save({wrap: {"module.a": torch.zeros(1)}, "step": 3}, tmp_path / "x.pth")
    assert list(PickleFile(tmp_path / "x.pth").infos) == ["a"]


@pytest.mark.parametrize("name", ["autoregressive.pth", "pytorch_model.bin"])
def test_code_is_refused_and_not_executed(tmp_path: Path, name: str) -> None:
    """A pickle that would run a program is refused, says so, and the program does not run."""
    torch.save({"a": torch.zeros(1), "b": Trap(tmp_path / "sprung")}, tmp_path / name)
    with pytest.raises(
        CheckpointError, match=f"{name}: refused: it holds more than tensors; nothing in it was executed"
    ):
        open_tensors(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_old_formats_are_refused_unread(tmp_path: Path) -> None:
    """Bare pickles, PyTorch's format of before 1.6 and its tar format are refused without unpickling."""
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"a": Trap(tmp_path / "sprung")}))
    torch.save({"a": torch.zeros(1)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with tarfile.open(tmp_path / "tar.pth", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    for name in ("bare.pth", "old.pth", "tar.pth"):
        with pytest.raises(CheckpointError, match=f"{name}: refused: .* nothing in it was executed") as caught:
            open_tensors(tmp_path / name)
        assert caught.value.hint
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    """A .pth cut anywhere is an error that names it."""
    torch.save({"a": torch.zeros(1000)}, tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        open_tensors(tmp_path / "x.pth")


def test_damaged_pickle_is_named(tmp_path: Path) -> None:
    """A pickle of noise inside a sound zip is an error, not a traceback."""
    torch.save({"a": torch.zeros(10)}, tmp_path / "x.pth")
    for noise in (b"", b"\x80\x02", b"garbage", b"\x80\x02}q\x00.", b"\x80\x02K\x01."):
        rewritten(tmp_path / "x.pth", tmp_path / "y.pth", data_pkl=noise)
        with pytest.raises(CheckpointError, match=r"y\.pth"):
            open_tensors(tmp_path / "y.pth")


def test_zip_bomb_is_refused(tmp_path: Path) -> None:
    """Compressed entries, which a small file can blow up with, are refused."""
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "x.pth")
    rewritten(tmp_path / "x.pth", tmp_path / "bomb.pth", zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"bomb\.pth: refused: its entries are compressed"):
        open_tensors(tmp_path / "bomb.pth")


def test_claimed_storage_is_refused(tmp_path: Path) -> None:
    """A tensor that claims more than the file holds is refused before it is allocated."""
    torch.save({"a": torch.zeros(4)}, tmp_path / "short.pth")
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "long.pth")
    with zipfile.ZipFile(tmp_path / "long.pth") as archive:
        boast = archive.read("long/data.pkl")
    rewritten(tmp_path / "short.pth", tmp_path / "boast.pth", data_pkl=boast)
    with pytest.raises(CheckpointError, match=r"boast\.pth"):
        open_tensors(tmp_path / "boast.pth")
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "wide.pth")
    with pytest.raises(CheckpointError, match="more than its storage holds"):
        open_tensors(tmp_path / "wide.pth")


@pytest.mark.parametrize(
    "content",
    [[1, 2], {}, {"epoch": 3}, {"a": torch.zeros(1), "epoch": 3}, torch.zeros(3), {"a": {"b": torch.zeros(1)}}],
)
def test_other_content_is_refused(tmp_path: Path, content: object) -> None:
    """What is no mapping from names to tensors is told as such."""
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        open_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>not found</html>", "web page"),
        (b"hello", "neither"),
        (b"", "neither"),
    ],
)
def test_what_is_no_model_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    """The usual wrong downloads are recognised."""
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=told):
        open_tensors(tmp_path / "x.pth")


def test_plain_zip_and_program_are_refused(tmp_path: Path) -> None:
    """A zip of something else, and a TorchScript program, are not read."""
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(CheckpointError, match="none that PyTorch wrote"):
        open_tensors(tmp_path / "x.pth")


def squares(count: int) -> bytes:
    """A pickle of one key: a tuple of the last tuple, twice, and so on: 2 ** count values to hash, in a few bytes."""
    doubled = b"".join(b"h%ch%c\x86q%c" % (at, at, at + 1) for at in range(count))
    return b"\x80\x02}(K\x01\x85q\0" + doubled + b"K\x01u."


@pytest.mark.parametrize("content", [squares(100), b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s."])
def test_keys_that_hashing_would_not_come_to_the_end_of_are_refused(tmp_path: Path, content: bytes) -> None:
    """A tuple that is 2¹⁰⁰ values wide by reference, or 100,000 deep, is refused before it is made a key."""
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    path = rewritten(tmp_path / "x.pth", tmp_path / "y.pth", data_pkl=content)
    with pytest.raises(CheckpointError, match=r"y\.pth: refused: it holds more than tensors"):
        PickleFile(path)


def test_a_damaged_pickle_is_one_line(tmp_path: Path) -> None:
    """Cut anywhere, or with any byte of its pickle changed: a CheckpointError, or tensors; no other error."""
    torch.save({"a.weight": torch.ones(2, 3), "b": torch.ones(1)}, tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    path = tmp_path / "y.pth"
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError):
            PickleFile(path)
    for at in range(0, len(pickled), 2):
        changed = pickled[:at] + bytes([pickled[at] ^ 1 << at % 8]) + pickled[at + 1 :]
        rewritten(tmp_path / "x.pth", path, data_pkl=changed)
        with suppress(CheckpointError):
            PickleFile(path)
