"""Driving the command line in tests: in this process where that is enough, as a program of its own where it is not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TEXT = "Hello there."
SHORT = ("--max-codes", "6")  # candidates of a random model end when they must


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """stdout as JSONL, read strictly."""
        return [strict_json(line) for line in self.out.splitlines()]

    @property
    def complaint(self) -> list[str]:
        """The lines on stderr from the error on."""
        lines = self.err.splitlines()
        return next((lines[place:] for place, line in enumerate(lines) if line.startswith("error: ")), [])


def strict_json(line: str) -> dict[str, Any]:
    """One record; ValueError for NaN and infinities, which JSON does not have."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} in {line[:80]}")

    loaded = json.loads(line, parse_constant=refuse)
    assert isinstance(loaded, dict)
    return loaded


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a file."""
    return [strict_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Cli:
    """`clvp` in this process: `cli("score", "-", …, stdin=b"…")`."""

    def __init__(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capfd, self.monkeypatch = capfd, monkeypatch

    def __call__(self, *arguments: str | Path, stdin: bytes | None = b"") -> Result:
        from clvp_cli.__main__ import main

        pipe = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
        self.monkeypatch.setattr(sys, "stdin", pipe)
        self.capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        caught = self.capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, caught.out, caught.err)

    def fine(self, *arguments: str | Path, stdin: bytes | None = b"") -> Result:
        """The same, for what must succeed."""
        result = self(*arguments, stdin=stdin)
        assert result.code == 0, result.err
        return result


def program(*arguments: str | Path) -> list[str]:
    """The command line that starts the program as its own process."""
    return [sys.executable, "-m", "clvp_cli", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """An environment of one thread, with the package on the path and nobody's own settings."""
    root = Path(__file__).resolve().parents[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLVP_")}
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return kept | threads | {"PYTHONPATH": str(root), "CLVP_USER_CONFIG": os.devnull} | more


def execute(*arguments: str | Path, cwd: Path, stdin: bytes = b"", **more: str) -> Result:
    """Run the program as its own process."""
    ended = subprocess.run(
        program(*arguments), input=stdin, capture_output=True, cwd=cwd, env=environment(**more), timeout=60
    )
    return Result(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def tone(seconds: float = 1.0, rate: int = 22050, pitch: float = 180.0) -> np.ndarray:
    """A buzz with a slow beat (n,), float32: something to listen to that is no silence."""
    at = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * pitch * at) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * at))).astype(np.float32)


def littered(directory: Path) -> Iterator[str]:
    """Temporary files that something left."""
    return (str(path) for path in directory.rglob("*") if path.name.startswith(".") or path.suffix in (".tmp", ".part"))
