"""Files that appear whole or not at all.

Owns where an output goes (links, devices, descriptors) and the sentences for what cannot be written. Must not know
what the bytes mean.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ..errors import ClvpError, OutputError

DASH = "-"  # stdin where something is read, stdout where something is written
DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # faults of writing, whoever's write it was
FULL = "free some space, or name a file on another disk; what was there before is untouched"
DESCRIPTOR = re.compile(r"/dev/(?:stdout|stderr|fd/\d+)|/proc/self/fd/\d+")


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears at `path` whole or not at all; `mode` is "wb", or "w" for UTF-8 text.

    The bytes go to a temporary file in the same directory, which takes the place of `path` when the block ends
    well. On any exception, Ctrl-C included, it is removed and an earlier file stays as it was. The earlier file's
    permissions are kept, a symbolic link stays and its target is replaced; devices, pipes and /dev/stdout are
    written straight through. Raises OutputError with a hint: no such directory, no permission, a full disk.
    """
    target, earlier = _target(path)
    through = _is_descriptor(path) or (earlier is not None and not stat.S_ISREG(earlier.st_mode))
    temporary = None if through else target.with_name(f".clvp-{secrets.token_hex(8)}.tmp")
    file: IO[Any] | None = None
    try:
        with translated(path):
            file = _open(temporary or Path(path), mode, earlier)
        yield file
        with translated(path):
            file.flush()
            if temporary is not None:
                os.fsync(file.fileno())
            file.close()
            if temporary is not None:
                temporary.replace(target)  # atomic: a reader sees the earlier file or this one
    except BaseException as error:
        if file is not None:
            with suppress(OSError):
                file.close()
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, ClvpError) and error.errno in DISK_ERRNOS:
            raise unwritable(error, path) from None
        raise


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM or a hang-up wait for the end of what is done within; it then has its effect."""
    came: list[int] = []
    here = threading.current_thread() is threading.main_thread()  # others are not interrupted
    names = ("SIGINT", "SIGTERM", "SIGHUP") if here else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows has no SIGHUP
    before = {number: signal.getsignal(number) for number in numbers}
    kept = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in kept:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def check_output(path: str | Path) -> None:
    """Raise OutputError now for an output that could not be written later: ask before a long job, not after."""
    if str(path) == DASH:
        return
    target, earlier = _target(path)
    if earlier is not None and not stat.S_ISREG(earlier.st_mode):
        return
    with translated(path):
        if not target.parent.is_dir():
            missing = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
            raise OSError(missing, os.strerror(missing), str(target))
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def is_special(path: str | Path) -> bool:
    """Whether `path` is a device, a pipe or a descriptor, which is written straight through."""
    try:
        return _is_descriptor(path) or not stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def translated(path: str | Path) -> Iterator[None]:
    """Turn the faults of writing `path` inside the block into OutputError; a broken pipe stays what it is."""
    try:
        yield
    except (BrokenPipeError, ClvpError):
        raise
    except (OSError, ValueError) as error:
        raise unwritable(error, path) from None


def unwritable(error: Exception, path: str | Path) -> OutputError:
    """The OutputError for `path`, with what to do about it."""
    number = error.errno if isinstance(error, OSError) else None
    try:
        parent = Path(os.path.realpath(path)).parent
    except (OSError, ValueError):  # the current directory was deleted; a NUL byte
        parent = Path(path).parent
    sentences = {
        errno.ENOENT: (f"its directory {parent} does not exist", f"make it first: mkdir -p {parent}"),
        errno.ENOTDIR: (f"{parent} is not a directory", "name a file in a directory"),
        errno.EISDIR: ("is a directory", "name a file in it"),
        errno.EROFS: ("the file system is read-only", "name a file elsewhere"),
        errno.EACCES: ("permission denied", f"make {parent} and the file writable, or name a file elsewhere"),
        errno.EPERM: ("not permitted", "name a file elsewhere"),
        errno.ENOSPC: ("the disk is full", FULL),
        errno.EDQUOT: ("your disk quota is used up", FULL),
        errno.EFBIG: ("the limit on file sizes is reached", "raise it (ulimit -f), or write less"),
        errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    }
    reason = getattr(error, "strerror", None) or str(error)
    what, hint = sentences.get(number or 0, (f"cannot be written: {reason}", "name a file elsewhere"))
    return OutputError(f"{path!s}: {what}" if "\0" not in str(path) else f"{str(path)!a}: {what}", hint)


def _target(path: str | Path) -> tuple[Path, os.stat_result | None]:
    """The file to replace, links followed, and what is there now; raises OutputError for a directory."""
    with translated(path):
        if not str(path) or str(path) == ".":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        try:
            earlier = Path(path).stat()
        except FileNotFoundError:
            return Path(os.path.realpath(path)), None
        if stat.S_ISDIR(earlier.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if stat.S_ISREG(earlier.st_mode) and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # a rename would ignore a read-only file
        return Path(os.path.realpath(path)), earlier


def _is_descriptor(path: str | Path) -> bool:
    return DESCRIPTOR.fullmatch(str(path)) is not None


def _open(path: Path, mode: str, earlier: os.stat_result | None) -> IO[Any]:
    if _is_descriptor(path):  # shares the descriptor's offset: reopening would cut off what `>>` should keep
        last = path.name
        number = int(last) if last.isdigit() else {"stdout": 1, "stderr": 2}[last]
        descriptor = os.dup(number)
    elif earlier is not None and not stat.S_ISREG(earlier.st_mode):
        descriptor = os.open(path, os.O_WRONLY)
    else:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        if earlier is not None and stat.S_ISREG(earlier.st_mode) and not _is_descriptor(path):
            os.fchmod(descriptor, stat.S_IMODE(earlier.st_mode))
        return (
            os.fdopen(descriptor, mode) if "b" in mode else os.fdopen(descriptor, mode, encoding="utf-8", newline="\n")
        )
    except BaseException:
        os.close(descriptor)
        raise
