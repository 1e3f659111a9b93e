"""The one edge where errors become lines on stderr and an exit code. A traceback reaches a person only with --debug.

Signals end the program here too: SIGTERM and SIGHUP unwind it as Ctrl-C does, so that no temporary file stays.
"""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from ..errors import ClvpError

INTERRUPTED = 130
ENDINGS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}  # signals that end a run in order
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST = 2000  # characters of a line: whatever a file put into a message
DEBUG = "CLVP_DEBUG"  # set by --debug


def visible(text: str) -> str:
    """Text as a person may be shown it: what would move a cursor, colour or reorder a line is written out as \\x1b."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def complain(message: str, hint: str | None = None) -> None:
    """One or two lines on stderr."""
    lines = [f"error: {_line(message)}"] + ([f"  hint: {_line(hint)}"] if hint else [])
    with suppress(OSError, ValueError):  # nobody may be listening
        print("\n".join(lines), file=sys.stderr, flush=True)


def _line(text: str) -> str:
    whole = visible(" ".join(text.split()))
    return whole if len(whole) <= LONGEST else whole[:LONGEST] + "…"


def settle_streams() -> None:
    """Keep the numbers of closed streams from files, which stray words would go into; escape what stdout cannot say."""
    while (number := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    os.close(number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does; records are UTF-8 by themselves
    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]  # a width that nobody knows; tables would be empty


came: list[int] = []  # the signals that ended the run


def take(handler: Callable[[int, Any], None] | signal.Handlers) -> None:
    """Handle the signals that end a run, but for those that are ignored, as SIGHUP is under nohup."""
    for name in ENDINGS:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def unwind(number: int, frame: Any) -> None:
    """A handler: KeyboardInterrupt, whatever the signal; a second one does not disturb the cleaning up."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return
        error = error.__context__
    came.append(number)
    raise KeyboardInterrupt


def stopped(note: str = "") -> None:
    """Say that a signal ended the run: two lines for the person at Ctrl-C, one for a log."""
    if came:
        take(lambda number, frame: None)  # nothing is left to end
    if not came or came[-1] == signal.SIGINT:
        complain("interrupted", note or "files that were there before are as they were")
    else:
        complain(": ".join(filter(None, [ENDINGS[signal.Signals(came[-1]).name], note])))


def leave(code: int) -> NoReturn:
    """Exit; where SIGTERM or SIGHUP ended the run it ends the program, so that others see what it was."""
    if code and came and came[-1] != signal.SIGINT:
        signal.raise_signal(came[-1])
    sys.exit(code)


def translated(function: Callable[..., None]) -> Callable[..., None]:
    """Run a command; foreseeable failures end in a short message and an exit code."""
    import typer

    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            from ..io.streams import silence_stdout

            silence_stdout()  # the reader has seen enough, as `| head` has: no failure
        except KeyboardInterrupt as interrupt:
            stopped(str(interrupt))
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
    if isinstance(error, UnicodeEncodeError):
        complain(f"{error.object[:80]!a}: a name that is not UTF-8", "rename the file")
        return 1
    complain(f"unexpected {type(error).__name__}: {error}", "run again with --debug and report what it prints")
    return 1
