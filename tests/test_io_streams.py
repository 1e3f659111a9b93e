"""Lines and bytes in, files and stdout out: whole or not at all, with a sentence for every fault."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clvp_cli.errors import InputError, OutputError
from clvp_cli.io.streams import atomic_write, check_output, read_bytes, read_text_lines, stdout_writer

ROOT = Path(__file__).resolve().parents[1]


class Stdin:
    """A stdin with bytes behind it."""

    closed = False

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def python(code: str, **kwargs) -> subprocess.Popen[bytes]:
    """A second interpreter that sees the package."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Wait for a second interpreter: exit code, stdout, stderr."""
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


# Reading


def test_lines_lose_their_ends_and_the_byte_order_mark(tmp_path: Path) -> None:
    """A BOM, CRLF and a last line without an end are tolerated; blank lines are kept."""
    path = tmp_path / "texts.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n caf\xc3\xa9 \nlast")
    assert list(read_text_lines(path)) == ["one", "", " café ", "last"]


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    """A line separator or a form feed inside a text does not split it."""
    path = tmp_path / "texts.txt"
    path.write_bytes("a\u2028b\x0cc\x85d\n".encode())
    assert list(read_text_lines(path)) == ["a\u2028b\x0cc\x85d"]


def test_a_dash_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "-" is stdin, for lines and for bytes, even where stdin has no bytes behind it."""
    monkeypatch.setattr(sys, "stdin", Stdin(b"a\nb\n"))
    assert list(read_text_lines("-")) == ["a", "b"]
    monkeypatch.setattr(sys, "stdin", Stdin(b"\x00\x01"))
    assert read_bytes("-") == b"\x00\x01"
    monkeypatch.setattr(sys, "stdin", io.StringIO("é\n"))
    assert list(read_text_lines("-")) == ["é"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"fine\n\xff\xfe\xfa\n", "line 2 is not UTF-8: byte 0xff at 0"),
        (b"fine\nhalf\x00way\n", "line 2 holds a NUL byte"),
        ("text".encode("utf-16"), "line 1 is UTF-16"),
        (b"short\n" + b"x" * 101, "line 2 is longer than 100 bytes"),
    ],
)
def test_what_is_not_text_is_named_with_its_line(tmp_path: Path, content: bytes, expected: str) -> None:
    """Bytes that are not UTF-8 text raise InputError with file and line."""
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        list(read_text_lines(path, max_line=100))
    assert "texts.txt" in caught.value.message and caught.value.hint


def test_unreadable_sources_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, a directory, an impossible name and a closed stdin each have their sentence."""
    with pytest.raises(InputError, match="no such file"):
        read_bytes(tmp_path / "missing.npy")
    with pytest.raises(InputError, match="is a directory"):
        read_bytes(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_bytes("a\0b")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="stdin is closed"):
        list(read_text_lines("-"))


def test_an_input_over_the_cap_is_refused_even_without_an_end(tmp_path: Path) -> None:
    """A file larger than asked for, or an endless device, is not read to the end."""
    path = tmp_path / "big"
    path.write_bytes(b"x" * 11)
    assert len(read_bytes(path, 11)) == 11
    with pytest.raises(InputError, match="larger than 10 bytes"):
        read_bytes(path, 10)
    with pytest.raises(InputError, match="larger than"):
        read_bytes("/dev/zero", 3_000_000)


# Writing files


def test_a_file_appears_whole_with_the_usual_permissions(tmp_path: Path) -> None:
    """A new file has the permissions that open() would give, and nothing else is left beside it."""
    path, plain = tmp_path / "out.txt", tmp_path / "plain"
    plain.touch()
    with atomic_write(path, "w") as file:
        file.write("é\n")
        assert not path.exists()
    assert path.read_bytes() == b"\xc3\xa9\n"
    assert path.stat().st_mode == plain.stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.txt", "plain"]


def test_permissions_and_links_of_an_earlier_file_stay(tmp_path: Path) -> None:
    """The mode of what was there is kept; a symbolic link stays a link and its target is replaced."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to("real")
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink() and real.read_bytes() == b"new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    dangling = tmp_path / "dangling"
    dangling.symlink_to("made")
    with atomic_write(dangling) as file:
        file.write(b"x")
    assert (tmp_path / "made").read_bytes() == b"x" and dangling.is_symlink()


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interrupted_write_leaves_the_earlier_file(tmp_path: Path, fault: type[BaseException]) -> None:
    """Whatever ends the block, the earlier output is untouched and there is no litter."""
    path = tmp_path / "out"
    path.write_bytes(b"earlier")
    with pytest.raises(fault), atomic_write(path) as file:
        file.write(b"half")
        raise fault
    assert path.read_bytes() == b"earlier" and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_real_ctrl_c_leaves_the_earlier_file(tmp_path: Path) -> None:
    """SIGINT in the middle of a write: the earlier output intact, no temporary file."""
    path = tmp_path / "out"
    path.write_bytes(b"earlier")
    process = python(
        "import time\nfrom clvp_cli.io.streams import atomic_write\n"
        f"with atomic_write({str(path)!r}) as file:\n"
        "    file.write(b'half'); file.flush(); print('ready', flush=True); time.sleep(20)"
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    assert len(list(tmp_path.iterdir())) == 2
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code != 0 and b"KeyboardInterrupt" in err
    assert path.read_bytes() == b"earlier" and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_places_that_cannot_be_written_are_explained(tmp_path: Path) -> None:
    """A missing parent, a file as parent, a directory as target, an impossible name: a sentence and a hint each."""
    (tmp_path / "file").touch()
    cases = {
        tmp_path / "none" / "out": "does not exist",
        tmp_path / "file" / "out": "is not a directory",
        tmp_path: "is a directory",
        "": "is a directory",
        tmp_path / ("x" * 300): "too long",
        "a\0b": "cannot be written",
    }
    for path, expected in cases.items():
        with pytest.raises(OutputError, match=expected) as caught, atomic_write(path):
            pass
        assert caught.value.hint and "\n" not in caught.value.message
        with pytest.raises(OutputError, match=expected):
            check_output(path)
    with pytest.raises(OutputError) as caught, atomic_write(tmp_path / "none" / "out"):
        pass
    assert caught.value.hint == f"make it first: mkdir -p {tmp_path / 'none'}"


def test_a_loop_of_links_is_an_output_error(tmp_path: Path) -> None:
    """Links that lead to each other are refused with a sentence."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match="cannot be written"), atomic_write(tmp_path / "a"):
        pass


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EACCES, "permission denied"), (errno.EROFS, "read-only"), (errno.ENOSPC, "disk is full")],
)
def test_a_directory_that_refuses_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: str
) -> None:
    """No permission, a read-only file system, no room for the first byte: an OutputError before anything is made."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("clvp_cli.io.atomic.os.open", refuse)
    with pytest.raises(OutputError, match=expected), atomic_write(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_or_file_is_refused(tmp_path: Path) -> None:
    """A directory without write permission, and a read-only file in a writable one, are left alone."""
    file = tmp_path / "file"
    file.touch(0o444)
    with pytest.raises(OutputError, match="permission denied"), atomic_write(file):
        pass
    tmp_path.chmod(0o555)
    try:
        for act in (check_output, lambda path: atomic_write(path).__enter__()):
            with pytest.raises(OutputError, match="permission denied"):
                act(tmp_path / "out")
    finally:
        tmp_path.chmod(0o755)


def test_check_output_accepts_what_can_be_written(tmp_path: Path) -> None:
    """A new file, an earlier one, a device and stdout pass; nothing is made."""
    for path in (tmp_path / "new", "/dev/null", "-", "/dev/stdout"):
        check_output(path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    """A write over the limit of the file system: OutputError, the earlier file intact, no litter."""
    path = tmp_path / "out"
    path.write_bytes(b"earlier")
    code, out, _ = finish(
        python(
            "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "from clvp_cli.io.streams import atomic_write\nfrom clvp_cli.errors import OutputError\n"
            f"try:\n    with atomic_write({str(path)!r}) as file:\n        file.write(b'x' * 100_000)\n"
            "except OutputError as error:\n    print(error.message, '|', error.hint)"
        )
    )
    assert code == 0 and b"the limit on file sizes is reached" in out
    assert path.read_bytes() == b"earlier" and [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_is_an_output_error() -> None:
    """/dev/full refuses every byte: the disk is full, whether it shows at once or at the end."""
    for size in (1, 10_000_000):
        with pytest.raises(OutputError, match="/dev/full: the disk is full"), atomic_write("/dev/full") as file:
            file.write(b"x" * size)


def test_an_unrelated_fault_in_the_block_keeps_its_name(tmp_path: Path) -> None:
    """A file that the block fails to read is not blamed on the output."""
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "out"):
        (tmp_path / "input").read_bytes()


def test_devices_and_pipes_are_written_straight_through(tmp_path: Path) -> None:
    """/dev/null and a FIFO take the bytes and stay what they are."""
    with atomic_write("/dev/null") as file:
        file.write(b"x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    fifo, got = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    with atomic_write(fifo, "w") as file:
        file.write("through")
    reader.join(10)
    assert got == [b"through"] and stat.S_ISFIFO(fifo.stat().st_mode)


def test_dev_stdout_shares_the_descriptor(tmp_path: Path) -> None:
    """/dev/stdout appends to what a redirection already holds instead of replacing the file."""
    path = tmp_path / "log"
    path.write_bytes(b"earlier\n")
    code = "from clvp_cli.io.streams import atomic_write\nwith atomic_write('/dev/stdout') as f: f.write(b'new\\n')"
    with path.open("ab") as log:
        assert finish(python(code, stdout=log))[0] == 0
    assert path.read_bytes() == b"earlier\nnew\n"


# Writing stdout


def test_stdout_lines_are_utf8_and_flushed(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Each line is out at once, as UTF-8, whatever the locale."""
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    code = "from clvp_cli.io.streams import stdout_writer\nwith stdout_writer() as w: w('é'); import os; os._exit(7)"
    assert finish(python(code, env=env))[:2] == (7, b"\xc3\xa9\n")


def test_stdout_without_bytes_takes_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stdout replaced by a text stream works too."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with stdout_writer() as write:
        write("one")
    assert stream.getvalue() == "one\n"
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="stdout is closed"), stdout_writer():
        pass


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    """`| head -1`: no traceback, exit code 0, the program stops writing."""
    process = python(
        "from clvp_cli.io.streams import stdout_writer\n"
        "with stdout_writer() as write:\n    for n in range(10**7): write('x' * 1000)\nprint('more')"
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"x" * 1000 + b"\n"
    process.stdout.close()
    started = time.monotonic()
    assert process.wait(timeout=20) == 0 and process.stderr.read() == b""
    process.stderr.close()
    assert time.monotonic() - started < 10


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_an_output_error() -> None:
    """Standard output into a full device: one OutputError and nothing from the interpreter's end."""
    code = (
        "import sys\nfrom clvp_cli.io.streams import stdout_writer\nfrom clvp_cli.errors import OutputError\n"
        "try:\n    with stdout_writer() as write: write('x')\n"
        "except OutputError as error: print(error.message, file=sys.stderr); sys.exit(1)"
    )
    with Path("/dev/full").open("wb") as full:
        assert finish(python(code, stdout=full))[::2] == (1, b"stdout: the disk is full\n")


def test_a_current_directory_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output in a directory that is gone is named in the error."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OutputError, match=r"out\.npy: its directory"):
        check_output("out.npy")
