"""Bytes and lines in and out: stdin and stdout as "-", a stdout whose reader may leave; files out are in atomic.py.

Owns the sentences for files that cannot be read. Must not know what the bytes mean.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from ..errors import InputError, OutputError
from .atomic import DASH, atomic_write, check_output, unwritable

__all__ = [
    "DASH", "atomic_write", "byte_lines", "check_output", "decode_line", "open_input", "read_bytes", "read_text_lines",
    "shown", "silence_stdout", "stdout_writer",
]  # fmt: skip

MAX_BYTES = 2**30  # of one input: far above any real file of codes or texts, far below a machine's memory
MAX_LINE_BYTES = 16 * 2**20
CHUNK = 2**20


class ReaderGoneError(BrokenPipeError):
    """The reader of stdout closed its end; `stdout_writer` ends quietly on it."""


def shown(source: str | Path) -> str:
    """What messages call a source: its path as given, or stdin."""
    return "stdin" if str(source) == DASH else str(source)


# Reading


@contextmanager
def open_input(source: str | Path) -> Iterator[BinaryIO]:
    """Open a file, or stdin for "-", for reading bytes; raises InputError naming what cannot be opened."""
    if str(source) == DASH:
        yield _stdin()
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - closed below; a fault of opening must not be mixed with others
    except (OSError, ValueError) as error:
        raise unreadable(error, source) from None
    with file:
        yield file


def read_bytes(source: str | Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a whole file, or stdin for "-"; raises InputError where it is missing or larger than `max_bytes`."""
    with open_input(source) as stream:
        chunks, total = [], 0
        try:
            while total <= max_bytes and (chunk := stream.read(CHUNK)):
                chunks.append(chunk)
                total += len(chunk)
        except OSError as error:
            raise unreadable(error, source) from None
    if total > max_bytes:
        raise InputError(
            f"{shown(source)}: larger than {max_bytes:,} bytes, the most that is read", "split it into several files"
        )
    return b"".join(chunks)


def read_text_lines(source: str | Path, max_line: int = MAX_LINE_BYTES) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, or of stdin for "-", as they arrive, without their line ends.

    A byte order mark and CRLF are tolerated. Raises InputError naming file and line for what is not text.
    """
    with open_input(source) as stream:
        for number, line in byte_lines(stream, source, max_line):
            yield decode_line(line, number, source)


def byte_lines(stream: BinaryIO, source: str | Path, max_line: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line with its end); raises InputError for a line over `max_line` bytes."""
    number = 0
    while True:
        try:
            line = stream.readline(max_line + 2)
        except OSError as error:
            raise unreadable(error, source) from None
        if not line:
            return
        number += 1
        if len(line.rstrip(b"\r\n")) > max_line:
            raise InputError(
                f"{shown(source)}: line {number} is longer than {max_line:,} bytes", "is it a text file with line ends?"
            )
        yield number, line


def decode_line(line: bytes, number: int, source: str | Path) -> str:
    """One line as text, without its end; raises InputError naming file and line for bytes that are not UTF-8 text."""
    where = f"{shown(source)}: line {number}"
    if number == 1:
        if line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{where} is UTF-16", "save the file as UTF-8: iconv -f UTF-16 -t UTF-8")
        line = line.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in line:
        raise InputError(f"{where} holds a NUL byte: this is not a text file", "give plain UTF-8 text")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} is not UTF-8: byte 0x{line[error.start]:02x} at {error.start}", "save the file as UTF-8"
        ) from None
    return text.removesuffix("\n").removesuffix("\r")


def unreadable(error: Exception, source: str | Path) -> InputError:
    """The InputError for a file that could not be opened or read."""
    name = shown(source)
    if isinstance(error, FileNotFoundError):
        return InputError(f"{name!s}: no such file", "check the name; - reads stdin")
    if isinstance(error, IsADirectoryError):
        return InputError(f"{name}: is a directory", "name a file in it")
    if isinstance(error, PermissionError):
        return InputError(f"{name}: permission denied", "make it readable: chmod u+r")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InputError(f"{name!a}: cannot be read: {reason}", "check the name and the disk")


def _stdin() -> BinaryIO:
    stream = sys.stdin
    if stream is None or stream.closed:
        raise InputError("stdin is closed", "pipe something in, or name a file")
    buffer = getattr(stream, "buffer", None)
    return cast(BinaryIO, buffer) if buffer is not None else io.BytesIO(stream.read().encode())


# Writing stdout


@contextmanager
def stdout_writer() -> Iterator[Callable[[str], None]]:
    """Give a function that writes one line to stdout and flushes it, so that a reader sees it at once.

    When the reader has left (`| head`), the block ends there quietly and the program goes on to exit 0; stdout then
    leads nowhere, so that the interpreter's last flush stays silent too. Raises OutputError for a full disk.
    """
    stream = sys.stdout
    if stream is None or stream.closed:
        raise OutputError("stdout is closed", "name a file with -o")
    buffer = getattr(stream, "buffer", None)

    def write(line: str) -> None:
        try:
            if buffer is None:
                stream.write(line + "\n")
            else:  # data is UTF-8, whatever the terminal's encoding
                stream.flush()
                buffer.write((line + "\n").encode("utf-8", "surrogatepass"))
            stream.flush()
        except BrokenPipeError:
            silence_stdout()
            raise ReaderGoneError(errno.EPIPE, "the reader of stdout is gone") from None
        except OSError as error:
            silence_stdout()
            raise unwritable(error, "stdout") from None

    with suppress(ReaderGoneError):
        yield write


def silence_stdout() -> None:
    """Lead stdout nowhere, so that what is still buffered cannot fail when the interpreter ends."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
