"""The one edge where errors become lines on stderr and an exit code. A traceback reaches a person only with --debug."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import typer

from ..errors import ClvpError

INTERRUPTED = 130
STDERR = 2
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
DEBUG = "CLVP_DEBUG"  # set by --debug


def visible(text: str) -> str:
    """Text as a person may be shown it: what would move a cursor, colour or reorder a line is written out as \\x1b."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def complain(message: str, hint: str | None = None) -> None:
    """One or two lines on stderr."""
    lines = [f"error: {visible(' '.join(message.split()))}"]
    lines += [f"  hint: {visible(' '.join(hint.split()))}"] if hint else []
    with suppress(BrokenPipeError, ValueError):  # nobody may be listening
        print("\n".join(lines), file=sys.stderr, flush=True)


def fill_gaps() -> None:
    """Lead descriptors that were closed from the start nowhere: the next file to be opened would take their place, and
    what is printed to a stderr that is not there goes to stdout."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = open(STDERR, "w", closefd=False)  # noqa: SIM115 - a descriptor, open to the end


def translated(function: Callable[..., None]) -> Callable[..., None]:
    """Run a command; foreseeable failures end in a short message and an exit code."""

    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            if sys.stdout is not None:  # None: it was closed from the start
                sys.stdout.flush()
        except BrokenPipeError:
            from ..io.streams import silence_stdout

            silence_stdout()  # the reader has seen enough, as `| head` has: no failure
        except KeyboardInterrupt as stopped:
            complain("interrupted", str(stopped) or "files that were there before are as they were")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            raise typer.Exit(explain(error)) from None

    return wrapper


def explain(error: Exception) -> int:
    """Say on stderr what went wrong; returns the exit code."""
    if isinstance(error, ClvpError):
        complain(error.message, error.hint)
        return error.exit_code
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        complain("out of memory", "lower --batch-size or -n, or use --dtype bfloat16")
        return 1
    if isinstance(error, OSError):
        known = {
            errno.ENOSPC: "free some space, or write elsewhere",
            errno.EACCES: "check who may read or write there",
            errno.EROFS: "the file system is read-only: write elsewhere",
        }
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}", known.get(error.errno or 0))
        return 1
    complain(f"unexpected {type(error).__name__}: {error}", "run again with --debug and report what it prints")
    return 1
