"""Where results go, checked before any work: minutes of it must not end in "no such directory"."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import UsageError

STDOUT = "-"


def is_records(path: str) -> bool:
    """Whether a file takes records as they are, of as many texts as there may be."""
    return Path(path).suffix.lower() == ".jsonl"


def job_records(out: str | None, *, numbered: bool) -> str | None:
    """`-o` where it takes the records of texts that have numbers, one after another, so that --resume can go on."""
    return out if out and out != STDOUT and numbered and is_records(out) else None


def check_candidates_output(path: str | None) -> None:
    """Raise UsageError or OutputError where candidates could not be written to `path`."""
    if path is not None:
        from ..io.candidates import output_kind
        from ..io.streams import check_output

        output_kind(path)
        check_filled(path)
        check_output(path)


def check_file_output(path: str | None, *suffixes: str) -> None:
    """Raise UsageError unless `path` has one of `suffixes`, OutputError where it could not be written."""
    if path is not None:
        from ..io.streams import check_output

        if Path(path).suffix.lower() not in suffixes:
            wanted = " or ".join(suffixes)
            raise UsageError(f"{path}: this is written as {wanted}", f"name it {Path(path).stem or 'OUT'}{suffixes[0]}")
        check_output(path)


def check_records_output(path: str | None) -> None:
    """Raise UsageError unless `path` is a .jsonl file or "-", OutputError where it could not be written."""
    if path is not None and path != STDOUT:
        from ..io.atomic import is_special
        from ..io.streams import check_output

        check_filled(path)
        if not is_records(path) and not is_special(path):
            raise UsageError(f"{path}: records are written as .jsonl", f"name it {Path(path).stem or 'OUT'}.jsonl")
        check_output(path)


def fill(pattern: str, **values: int | None) -> str:
    """The file of one text or candidate: {line} or {index} in a pattern is its number; None leaves it as it is."""
    for name, value in values.items():
        pattern = pattern if value is None else pattern.replace(f"{{{name}}}", str(value))
    return pattern


def check_filled(*paths: str | None) -> None:
    """UsageError where a name still wants a number that is not there, or two outputs would be one file."""
    seen: set[str] = set()
    for path in paths:
        if path is None or path == STDOUT:
            continue
        if wanted := re.search(r"\{(line|index)\b[^}]*\}", path):
            raise UsageError(f"{path}: there is no number for {wanted[0]} here", "leave it out of the name")
        real = os.path.realpath(path)
        if real in seen:
            raise UsageError(f"{path}: two outputs would be written to it", "give each a name of its own")
        seen.add(real)


def check_inputs_stay(inputs: Iterable[str | None], outputs: Iterable[str | None]) -> None:
    """UsageError where an output is an input file, by this or another name (a link): what was read would be lost."""
    read = {_file(name): name for name in inputs if name}
    for path in outputs:
        if path and path != STDOUT and (file := _file(path)) and file in read:
            from ..io.atomic import is_special

            if not is_special(path):  # /dev/stdout may lead to a file that is appended to
                name = "stdin" if read[file] == STDOUT else read[file]
                raise UsageError(f"{path}: writing it would replace the input {name}", "name another output")


def _file(name: str) -> tuple[int, int] | None:
    """Which regular file a name leads to, stdin for "-"; None where it leads to none."""
    with suppress(OSError, ValueError):
        found = os.fstat(0) if name == STDOUT else Path(name).stat()
        return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None
    return None


def check_patterns(texts: int, patterns: Mapping[str, str | None]) -> None:
    """UsageError where many texts would write one file over and over, or records of all of them many files."""
    for option, path in patterns.items():
        if option == "-o" and path and is_records(path) and "{line}" in path:
            raise UsageError(f"-o {path}: records of all texts go into one .jsonl", "leave {line} out of its name")
        if texts > 1 and path and path != STDOUT and "{line}" not in path and not (option == "-o" and is_records(path)):
            raise UsageError(f"{option} {path}: {texts} texts would write the same file", "put {line} into its name")
