"""Long jobs that lose nothing: the records of many texts gather in OUT.jsonl.part, which becomes OUT.jsonl at the end.

Owns what is finished of an earlier run and whether it is the same job. Must not know how a record is made.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import UsageError
from .inputs import TextLine
from .options import Run

log = logging.getLogger("clvp")

HEAD = 0  # the "line" of the record that says which job a .part belongs to; texts count from 1
NEVER_MATTER = ("device", "batch_size")  # settings that change no result


class Job:
    """Records of many texts, on their way into one .jsonl file.

    Args:
        out: the .jsonl file to make.
        begun: what must be the same for a later run to go on.
        each: records that a finished text has.
        resume: go on with what an earlier run left.
    Raises:
        UsageError: an earlier run left something and `resume` is not set; or it was another job.

    With `resume`, a file that is there already and holds every text is finished: it stays as it is.
    """

    def __init__(self, out: str, begun: Mapping[str, Any], each: int, resume: bool) -> None:
        from ..io.jsonl import JsonlAppender

        self.out, self.part = Path(out), Path(f"{out}.part")
        self._head: dict[str, Any] = {"line": HEAD, "job": dict(begun)}
        left = bool(_size(self.part))  # an empty one was killed early, or is of a run that has just begun
        if left and not resume:
            raise UsageError(
                f"{self.part}: left by a run that was interrupted", "add --resume to go on, or remove it to begin anew"
            )
        self.finished = resume and not left and self.out.exists()
        source = self.out if self.finished else self.part
        self._found = _read(source) if source.exists() else []
        if not self.finished:
            self._check()
        counts = Counter(line for line, index in self._made() if index is not None)
        self.done = {line for line, count in counts.items() if count >= each}
        self._appender = JsonlAppender(self.part, key="line")

    def left(self, texts: Sequence[TextLine]) -> list[TextLine]:
        """The texts that are not finished; UsageError where a finished line's text is another one now."""
        said = {record.get("line"): record.get("text") for record in self._found}
        if self.finished:
            seeds = {record.get("seed") for record in self._found} - {None, self._head["job"]["seed"]}
            if seeds or any(said.get(entry.line) != entry.text for entry in texts):
                raise UsageError(
                    f"{self.out}: there already, of other texts or another seed",
                    "remove it to begin anew, or name another output",
                )
            log.warning("%s is finished already: nothing is left to do", self.out)
            return []
        for entry in texts:
            if entry.line in self.done and said[entry.line] != entry.text:
                raise UsageError(
                    f"{self.part}: line {entry.line} was another text", "give the same file, or remove the .part"
                )
        return [entry for entry in texts if entry.line not in self.done]

    def keep(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass records on, each after it is on disk; once the last one is, the file is whole."""
        for record in records:
            if HEAD not in self._appender.done:
                self._appender.append(self._head)
            self._appender.append(record)
            yield record
        if not self.finished:
            self._finish()

    def __enter__(self) -> Self:
        self._appender.__enter__()
        if not self.finished and self._found and not self._appender.done:
            self._appender.__exit__(None, None, None)
            raise UsageError(f"{self.part}: another run has finished it meanwhile", f"see {self.out}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.part.exists() and not self._appender.done:
            self.part.unlink()  # nothing was made, so nothing is left
        self._appender.__exit__(kind, value, trace)
        if isinstance(value, KeyboardInterrupt) and self.part.exists():
            raise KeyboardInterrupt(f"{self.part} keeps what is finished; add --resume to go on") from None

    def _made(self) -> dict[tuple[Any, Any], dict[str, Any]]:
        """The newest record of each line and index; index None: what went wrong with the whole line."""
        return {(record.get("line"), record.get("index")): record for record in self._found}

    def _check(self) -> None:
        """UsageError naming the first thing in which this job is not the one that was begun."""
        if not self._found:
            return
        was = self._found[0].get("job")
        if not isinstance(was, dict) or any(not isinstance(record.get("line"), int) for record in self._found):
            raise UsageError(f"{self.part}: not left by a run of this command", "remove it, or name another output")
        now = self._head["job"]
        for name in now:
            if was.get(name) != now[name]:
                raise UsageError(
                    f"{self.part}: begun with {name} {was.get(name)}, not {now[name]}",
                    "resume with the same options, or remove it to begin anew",
                )

    def _finish(self) -> None:
        """The records by line, the newest of each, under the file's own name; then the .part goes."""
        from ..io.jsonl import write_jsonl

        self._found = _read(self.part)
        made = self._made()
        spoken = {line for line, index in made if index is not None}  # whatever went wrong with it before
        records = [made[at] for at in made if at[0] != HEAD and (at[1] is not None or at[0] not in spoken)]
        write_jsonl(self.out, sorted(records, key=lambda record: int(record["line"])))
        self.part.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read(path: Path) -> list[dict[str, Any]]:
    """The whole records of a file; a last line that was cut short is none."""
    from ..io.jsonl import parse_lines
    from ..io.streams import byte_lines, open_input

    with open_input(path) as stream:
        whole = ((number, line) for number, line in byte_lines(stream, path) if line.endswith(b"\n"))
        return [record for _, record in parse_lines(whole, path)]


def describe(run: Run, command: str, references: Sequence[str], **more: Any) -> dict[str, Any]:
    """What makes two runs of a command the same job."""
    settings = {name: value for name, value, _ in run.resolved.rows() if name not in NEVER_MATTER}
    return {"command": command, "references": list(references), **settings, **more}
