"""Arrays in and out: checked before they are allocated, never unpickled, the same bytes every time."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from clvp_cli.errors import InputError, OutputError
from clvp_cli.io.arrays import json_array, read_npy, read_npz, write_npy, write_npz


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


def npy(array: object, **kwargs: object) -> bytes:
    """What numpy.save writes."""
    file = io.BytesIO()
    np.save(file, array, **kwargs)
    return file.getvalue()


def forged(header: str, body: bytes = b"", version: int = 1) -> bytes:
    """A .npy with a header of our choosing."""
    text = header.encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body


def head(shape: str, descr: str = "'<i8'", fortran: str = "False") -> str:
    """The text of a header."""
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


def npz(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with these entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(5, dtype=">i4"),
        np.arange(24, dtype=">f8").reshape(2, 3, 4).transpose(2, 0, 1),
        np.array(7, dtype=np.uint8),
        np.zeros((0, 5), dtype=np.float32),
        np.array([True, False]),
        np.array("meta é"),
        np.arange(6, dtype=np.float16)[::2],
    ],
)
def test_arrays_survive_the_trip(tmp_path: Path, array: np.ndarray) -> None:
    """Any order and byte order, numpy's writer or ours: the same values, native, C-ordered and writable."""
    write_npy(tmp_path / "a.npy", array)
    write_npz(tmp_path / "a.npz", {"a": array})
    for read in (
        read_npy(npy(array)),
        read_npy(tmp_path / "a.npy"),
        read_npz(tmp_path / "a.npz")["a"],
        np.load(tmp_path / "a.npy", allow_pickle=False),
    ):
        assert read.shape == array.shape and np.array_equal(read, array)
    read = read_npy(npy(array))
    assert read.dtype.isnative and read.flags.c_contiguous and read.flags.writeable


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version: tuple[int, int]) -> None:
    """Versions 1, 2 and 3 of numpy's format."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.arange(3), version=version)
    assert read_npy(file.getvalue()).tolist() == [0, 1, 2]


GOOD = npy(np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not a .npy file"),
        (b"\x93NUMPY", "cut short in its header"),
        (GOOD[:40], "cut short in its header"),
        (GOOD[:-1], "cut short: 2×3 needs 48 bytes, 47 are there"),
        (GOOD + b"x", "1 bytes follow the array"),
        (forged(head("(10**12,)")), "header is damaged"),
        (forged(head("(1000000000000,)")), "claims 8,000,000,000,000 bytes"),
        (forged(head("(99999999999999999999, 99999999999999999999)")), "over the limit"),
        (forged(head(f"(0, {2**70})")), "over the limit"),
        (forged(head(f"({2**62}, 0)")), "over the limit"),
        (forged(head("(100000,)"), b"\0" * 80), "cut short"),
        (forged(head("(-1,)")), "header is damaged"),
        (forged(head("(True,)")), "header is damaged"),
        (forged(head("[2]")), "header is damaged"),
        (forged(head("(2.0,)")), "header is damaged"),
        (forged(head("(1,)" * 1, fortran="'yes'")), "header is damaged"),
        (forged("{'descr': '<i8'}"), "header is damaged"),
        (forged("(" * 5000), "header is damaged"),
        (forged("-" * 9000 + "1"), "header is damaged"),
        (forged("__import__('os').abort()"), "header is damaged"),
        (forged("[1, 2, 3]"), "header is damaged"),
        (forged(" " * 20_000), "too long"),
        (forged(head("(1,)"), version=9), "no known version"),
        (forged(head("(1,)", "'|O'"), b"\0" * 8), "refused"),
        (forged(head("(1,)", "'O'"), b"\0" * 8), "refused"),
        (forged(head("(1,)", "[('a', 'O')]"), b"\0" * 8), "is not a plain number"),
        (forged(head("(1,)", "'<V2'"), b"\0" * 2), "is not a plain number"),
        (forged(head("(1,)", "'<M8[s]'"), b"\0" * 8), "is not a plain number"),
        (forged(head("(1,)", "'<i3'"), b"\0" * 8), "is not a plain number"),
        (forged(head("(1000000000000000000,)", "'<U0'")), "is not a plain number"),
    ],
)
def test_bad_npy_is_refused_before_it_is_allocated(data: bytes, expected: str) -> None:
    """Cut, forged, oversized and pickled arrays raise InputError naming the file."""
    with pytest.raises(InputError, match=expected) as caught:
        read_npy(data, "x.npy")
    assert caught.value.message.startswith("x.npy: ") and caught.value.hint


def test_every_cut_of_a_file_is_noticed(tmp_path: Path) -> None:
    """No prefix of a .npy or of an .npz is read as something else."""
    write_npz(tmp_path / "a.npz", {"a": np.arange(6)})
    packed = (tmp_path / "a.npz").read_bytes()
    for cut in range(len(GOOD)):
        with pytest.raises(InputError):
            read_npy(GOOD[:cut])
    for cut in range(len(packed)):
        with pytest.raises(InputError):
            read_npz(packed[:cut])


def test_a_flipped_byte_in_an_npz_is_noticed() -> None:
    """The archive's checksum is verified."""
    data = bytearray(npz({"codes.npy": GOOD}))
    data[data.index(GOOD) + len(GOOD) - 2] ^= 1
    with pytest.raises(InputError, match="not a whole"):
        read_npz(bytes(data))


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    """An object array, in .npy and in .npz, is never unpickled."""
    marker = tmp_path / "executed"
    hostile = npy(np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"refused: it holds Python objects.*nothing was executed"):
        read_npy(hostile)
    with pytest.raises(InputError, match="refused"):
        read_npz(npz({"codes.npy": hostile}))
    with pytest.raises(InputError, match=r"not a \.npy"):
        read_npy(pickle.dumps(Bomb(marker)))
    assert not marker.exists()
    assert read_npz(npz({"codes.npy": GOOD, "other.npy": hostile}), only=("codes",)).keys() == {"codes"}
    assert not marker.exists()


def test_a_zip_bomb_is_refused_before_it_unfolds() -> None:
    """Entries that claim more than the cap together, or another size than their array takes, are not unpacked."""
    big = npy(np.zeros(200_000, dtype=np.int64))
    small = npz({"a.npy": big, "b.npy": big}, zipfile.ZIP_DEFLATED)
    assert len(small) < 20_000
    with pytest.raises(InputError, match="claim more than 2,000,000 bytes"):
        read_npz(small, max_bytes=2_000_000)
    assert len(read_npz(small, max_bytes=4_000_000)) == 2
    padded = npz({"a.npy": GOOD + b"\0" * 1_000_000}, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="1,000,000 bytes follow"):
        read_npz(padded)


def test_a_shape_that_is_not_wanted_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller sees each array's shape first; of what it refuses no more than the header is read."""
    taken: list[int] = []
    whole = zipfile.ZipExtFile.read

    def read(self: zipfile.ZipExtFile, n: int = -1) -> bytes:
        data = whole(self, n)
        taken.append(len(data))
        return data

    def admit(key: str, shape: tuple[int, ...]) -> None:
        if shape != (2, 3):
            raise InputError(f"{key} {shape}")

    packed = npz({"a.npy": GOOD, "b.npy": npy(np.zeros(200_000))}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", read)
    with pytest.raises(InputError, match=r"b \(200000,\)"):
        read_npz(packed, admit=admit)
    assert sum(taken) < 20_000


def test_an_entry_that_lies_about_its_size_is_refused() -> None:
    """A directory that claims fewer or more bytes than the entry holds does not make it larger in memory."""
    for claimed in (len(GOOD) - 8, len(GOOD) + 8):
        data = bytearray(npz({"a.npy": GOOD}))
        at = data.index(b"PK\x01\x02")
        data[at + 24 : at + 28] = struct.pack("<I", claimed)
        with pytest.raises(InputError):
            read_npz(bytes(data))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_numpy_does_not_use_are_refused(compression: int) -> None:
    """Only stored and deflated entries are opened."""
    with pytest.raises(InputError, match="packed in a way"):
        read_npz(npz({"a.npy": GOOD}, compression))


def test_an_encrypted_entry_is_refused() -> None:
    """An entry with a password is an InputError, not a crash."""
    data = bytearray(npz({"a.npy": GOOD}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InputError, match="not a whole"):
        read_npz(bytes(data))


def test_doubled_names_are_refused() -> None:
    """Two entries of one name would leave open which is meant."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.npy", GOOD)
        archive.writestr("a.npy", GOOD)
    with pytest.raises(InputError, match="two arrays named 'a'"):
        read_npz(file.getvalue())


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    """Nothing of the clock or the machine is in the files."""
    for name in ("a", "b"):
        write_npz(tmp_path / f"{name}.npz", {"x": np.arange(3), "meta": json_array({"b": 1, "a": "é"})})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert str(np.load(tmp_path / "a.npz", allow_pickle=False)["meta"]) == '{"a": "é", "b": 1}'


def test_objects_are_never_written(tmp_path: Path) -> None:
    """An object array would be pickled: nothing is written, and the earlier file stays."""
    path = tmp_path / "a.npy"
    path.write_bytes(b"earlier")
    with pytest.raises(TypeError):
        write_npy(path, np.array([{}], dtype=object))
    assert path.read_bytes() == b"earlier"
    with pytest.raises(OutputError, match="does not exist"):
        write_npz(tmp_path / "none" / "a.npz", {"x": np.arange(3)})


def test_files_are_named_in_messages(tmp_path: Path) -> None:
    """A path appears in its message as it was given."""
    path = tmp_path / "cut.npz"
    path.write_bytes(npz({"codes.npy": GOOD})[:-4])
    with pytest.raises(InputError, match=r"cut\.npz: not a whole .npz"):
        read_npz(path)
    with pytest.raises(InputError, match=r"none\.npy: no such file"):
        read_npy(tmp_path / "none.npy")
