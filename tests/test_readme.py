"""What the README says to type works: its shell blocks run in one directory, its Python blocks after one another."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import ROOT

from clvp_cli.audio.voice import bundled_voice
from clvp_cli.locate import EMBEDDED

README = (ROOT / "README.md").read_text(encoding="utf-8")
ELSEWHERE = ("path/to", "model fetch", "make ", "pip ", "-c TRAIN.yaml")  # what needs a checkpoint, a network, a venv

pytestmark = pytest.mark.skipif(not EMBEDDED["mini"].is_dir(), reason="the embedded model is not in this checkout")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language that can run here."""
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [block for block in found if not any(word in block for word in ELSEWHERE)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that the examples name, and `clvp` on the path."""
    directory = tmp_path_factory.mktemp("readme")
    (directory / "voice.flac").write_bytes(bundled_voice())
    samples, rate = soundfile.read(directory / "voice.flac")
    for name in ("voice", "clip1", "clip2", "take1", "take2", "take3"):
        soundfile.write(directory / f"{name}.wav", samples[: (3 + len(name) % 3) * rate], rate)
    (directory / "lines.txt").write_text("Hello world.\nA second line.\n")
    (directory / "chapter.txt").write_text("Hello there. It is\nlate.\n")
    tool = directory / "bin" / "clvp"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m clvp_cli "$@"\n')
    tool.chmod(0o755)
    return directory


def test_there_are_examples() -> None:
    """The README has shell and Python examples that run here."""
    assert blocks("sh") and len(blocks("python")) >= 2


def test_shell_examples_run(desk: Path) -> None:
    """Every shell block ends well, from top to bottom, pipelines included."""
    paths = f"{desk / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": str(ROOT)}
    bash = shutil.which("bash")
    assert bash
    shutil.copy(desk / "take1.wav", desk / "theirs.wav")
    prepare = "clvp encode take1.wav -q -o theirs.npy > /dev/null; clvp encode take2.wav -q -o more.jsonl > /dev/null\n"
    for block in blocks("sh"):
        script = "set -euo pipefail\n" + prepare + block
        done = subprocess.run([bash, "-c", script], cwd=desk, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_python_examples_run(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block runs with the files and the audio that it names."""
    monkeypatch.chdir(desk)
    audio, _ = soundfile.read("voice.wav", dtype="float32")
    names: dict[str, object] = {"audio": audio}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
