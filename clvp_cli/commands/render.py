"""What reaches a person and what reaches a pipe: records as JSONL or a table on stdout, notices and progress on stderr.

Light on purpose: rich is loaded only when a table or a bar is drawn.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from .edge import visible

CODES_SHOWN = 8  # of a candidate, in a table: enough to tell candidates apart


class Tick(Protocol):
    """Moves a progress bar: things done so far, and codes made since the last call."""

    def __call__(self, done: int, codes: int) -> None: ...


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = visible(record.getMessage())
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


@dataclass(frozen=True)
class Output:
    """How a command speaks."""

    json: bool = False
    table: bool = False
    quiet: bool = False
    verbose: bool = False
    _bars: list[Callable[[], None]] = field(default_factory=list)  # how to take down what is drawn on stderr

    def configure_logging(self, stream: TextIO) -> None:
        """Send the package's notices to `stream` (stderr)."""
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_Plain())
        level = logging.ERROR if self.quiet else logging.DEBUG if self.verbose else logging.INFO
        for name in ("clvp", "clvp_cli"):
            logger = logging.getLogger(name)
            logger.handlers[:] = [handler]
            logger.setLevel(level)
            logger.propagate = False

    def notice(self, message: str) -> None:
        """A line for a person, on stderr."""
        logging.getLogger("clvp").info(message)

    def table_wanted(self, out: str | None = None) -> bool:
        """Whether records go to a person as a table rather than to a program as JSONL."""
        return not self.json and out != "-" and (self.table or _at_terminal())

    def deliver(
        self,
        records: Iterable[Mapping[str, Any]],
        columns: Sequence[str],
        out: str | None = None,
        *,
        to_the_end: bool = False,
    ) -> tuple[int, int]:
        """Write records as they come: a table of `columns` for a person, JSONL for a program, and JSONL to `out`.

        Where the reader of stdout has left, work stops, unless there is a file to write or `to_the_end` is set.
        Returns (records, failed ones: those with an "error").
        """
        from ..io.jsonl import dump_record
        from ..io.streams import atomic_write

        table: list[Mapping[str, Any]] | None = [] if self.table_wanted(out) else None
        total = failed = 0
        heard = sys.stdout is not None or not (to_the_end or (out and out != "-"))
        with atomic_write(out, "w") if out and out != "-" else nullcontext() as file:
            for record in records:
                if not gc.isenabled():  # see __main__: what was loaded stays; from now on, cycles are work's
                    gc.freeze()
                    gc.enable()
                total, failed = total + 1, failed + is_failure(record)
                line = dump_record(dict(record))
                if file is not None:
                    file.write(line + "\n")
                if table is not None:
                    table.append(record)
                elif heard:
                    heard = say(line)
                if not (heard or file is not None or to_the_end):
                    break
        if table:
            for take_down in self._bars:
                take_down()
            self._table(table, columns)
        return total, failed

    def _table(self, records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        from rich.console import Console
        from rich.table import Table

        shown = [name for name in columns if any(_cell(record, name) for record in records)]
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in shown:
            whole = name == "codes" or any(isinstance(_value(record, name), (int, float)) for record in records)
            table.add_column(name.rpartition(".")[2], no_wrap=whole, overflow="ellipsis" if whole else "fold")
        for record in records:
            table.add_row(*(_cell(record, name) for name in shown))
        Console(markup=False, emoji=False).print(table)

    @contextmanager
    def progress(self, label: str, total: int, out: str | None) -> Iterator[Tick | None]:
        """A bar on stderr while work goes on, at a terminal only, and not where records would run into it."""
        if self.quiet or not sys.stderr.isatty() or (_at_terminal() and not self.table_wanted(out)):
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        seen = 0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total)
            self._bars.append(bar.stop)

            def tick(done: int, codes: int) -> None:
                nonlocal seen
                seen += codes
                bar.update(task, completed=done, description=f"{label} ({seen} codes)" if seen else label)

            yield tick


def is_failure(record: Mapping[str, Any]) -> bool:
    """Whether a record tells of a row that failed: an "error", and nothing that was made (such has a schema)."""
    return "error" in record and "schema" not in record


def _at_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def say(line: str) -> bool:
    """Write one line to stdout; False once its reader has left."""
    from ..io.streams import stdout_writer

    with stdout_writer() as write:
        write(line)
        return True
    return False  # stdout_writer ends its block quietly when the reader has left


def _value(record: Mapping[str, Any], name: str) -> Any:
    value: Any = record
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _cell(record: Mapping[str, Any], name: str) -> str:
    value = _value(record, name)
    if isinstance(value, bool):
        return str(value).lower()  # as JSON and YAML have it
    if isinstance(value, float):
        return f"{value:g}" if name == "value" else f"{value:.4f}"
    if isinstance(value, list):
        most = CODES_SHOWN if name == "codes" else len(value)
        return visible(" ".join([*map(str, value[:most]), *(["…"] if len(value) > most else [])]))
    return "" if value is None else visible(str(value))
