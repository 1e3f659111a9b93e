"""Where results may go: never over a file that is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import SHORT, TEXT, Cli, execute, tone

BEST = ("generate", "-t", TEXT, "-r", "voice.wav", "-n", "1", *SHORT)
LINES = {
    "a reference": (*BEST, "--wav", "voice.wav"),
    "a reference, by another spelling": (*BEST, "--wav", "./voice.wav"),
    "a reference, by a symbolic link": (*BEST, "--wav", "symbolic.wav"),
    "a reference, by a hard link": (*BEST, "--wav", "hard.wav"),
    "a saved voice": ("generate", "-t", TEXT, "-r", "voice.npz", "-o", "voice.npz"),
    "a saved voice, through latents": ("generate", "-t", TEXT, "-r", "voice.npz", "--latents", "voice.npz"),
    "texts": ("generate-candidates", "-f", "in.jsonl", "-r", "voice.wav", "-o", "in.jsonl"),
    "texts of a job that goes on": ("generate", "-f", "in.jsonl", "-r", "voice.wav", "-o", "in.jsonl", "--resume"),
    "a reference, by a line's number": ("generate", "-f", "in.jsonl", "-r", "l-2.wav", "--wav", "l-{line}.wav"),
    "candidates": ("score", "in.jsonl", "-t", TEXT, "-o", "in.jsonl"),
    "the text of candidates": ("score", "codes.npz", "-f", "in.jsonl", "-o", "in.jsonl"),
    "texts to tokenize": ("tokenize", "-f", "in.jsonl", "-o", "in.jsonl"),
    "a clip to encode": ("encode", "clip.npz", "-o", "clip.npz"),
    "a clip to look at": ("extract-mels", "clip.npz", "-o", "clip.npz"),
    "clips of a voice": ("voice", "voice.wav", "voice.npz", "-o", "voice.npz"),
    "codes to decode": ("decode", "clip.wav", "-o", "clip.wav"),
    "the voice to decode in": ("decode", "codes.npz", "-r", "voice.wav", "-o", "voice.wav"),
    "the voice to decode in, by an index": ("decode", "codes.npz", "-r", "l-1.wav", "-o", "l-{index}.wav"),
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory of inputs of every kind."""
    import numpy as np
    import soundfile

    for name in ("voice.wav", "clip.wav", "l-1.wav", "l-2.wav"):
        soundfile.write(tmp_path / name, tone(), 22050)
    (tmp_path / "clip.npz").write_bytes((tmp_path / "clip.wav").read_bytes())
    np.savez(tmp_path / "voice.npz", vectors=np.ones((1, 32), np.float32))
    np.savez(tmp_path / "codes.npz", codes=np.array([[1, 2, 3], [4, 5, 6]]))
    (tmp_path / "in.jsonl").write_text('{"codes": [1, 2, 3], "text": "Hello."}\n' * 2)
    (tmp_path / "symbolic.wav").symlink_to("voice.wav")
    os.link(tmp_path / "voice.wav", tmp_path / "hard.wav")
    return tmp_path


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_no_output_replaces_an_input(line: tuple[str, ...], cli: Cli, here: Path) -> None:
    """An output that is an input file, under whatever name, is a usage error that names both; both stay."""
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    result = cli(*line)
    assert result.code == 2 and result.out == "" and "would replace the input" in result.complaint[0], result.err
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_a_file_that_is_piped_in_is_an_input_too(cli: Cli, here: Path) -> None:
    """`-` and /dev/stdin stand for the file behind them, which is not replaced either."""
    whole, kept = (here / "in.jsonl").read_bytes(), os.dup(0)
    with (here / "in.jsonl").open("rb") as stdin:
        os.dup2(stdin.fileno(), 0)
    try:
        for source in ("-", "/dev/stdin"):
            result = cli("score", source, "-o", "in.jsonl", stdin=whole)
            assert result.code == 2 and "in.jsonl: writing it would replace" in result.complaint[0]
        assert (here / "in.jsonl").read_bytes() == whole
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_devices_and_pipes_may_be_both(here: Path, tiny_model: Path) -> None:
    """What is no file cannot be replaced: /dev/stdin and /dev/stdout, - for both, /dev/null."""
    codes = (here / "in.jsonl").read_bytes()
    for names in (("/dev/stdin", "/dev/stdout"), ("-", "-"), ("-", "/dev/null")):
        result = execute("score", names[0], "-o", names[1], cwd=here, stdin=codes, CLVP_MODEL=str(tiny_model))
        assert result.code == 0 and result.err == "" and result.out, names


NAMELESS = (
    (*BEST, "-o", ""), (*BEST, "--wav", ""), (*BEST, "--latents", ""), (*BEST, "--save-candidates", ""),
    ("generate", "-t", TEXT, "-r", ""), ("generate", "-f", "", "-r", "voice.wav"), ("tokenize", "-f", ""),
    ("score", "", "-t", TEXT), ("score", "in.jsonl", "-o", ""), ("extract-mels", ""), ("decode", "", "-o", "x.wav"),
)  # fmt: skip


@pytest.mark.parametrize("line", NAMELESS, ids=lambda line: " ".join(line))
def test_a_file_without_a_name_is_a_usage_error(line: tuple[str, ...], cli: Cli, here: Path) -> None:
    """An empty name, as a variable that is not set leaves it, is never stdin or the directory."""
    result = cli(*line)
    assert result.code == 2 and result.out == "" and "empty file name" in result.complaint[0]


def test_a_place_for_a_number_is_filled_or_refused(cli: Cli, here: Path) -> None:
    """{line} and {index} never become part of a name as they are."""
    lines = ("generate", "-f", "in.jsonl", "-r", "voice.wav", *SHORT)
    for line in (
        ("generate-candidates", "-t", TEXT, "-r", "voice.wav", "-o", "c-{line}.npz"),
        ("generate-candidates", "-f", "in.jsonl", "-r", "voice.wav", "-o", "c-{index}.jsonl"),
        ("encode", "clip.wav", "-o", "c-{index}.npz"),
        ("score", "in.jsonl", "-o", "c-{line}.jsonl"),
        (*lines, "-o", "best-{line}.jsonl"),
    ):
        result = cli(*line)
        assert result.code == 2 and not list(here.glob("*{*")), line


def test_dev_stdout_is_stdout(here: Path, tiny_model: Path) -> None:
    """Records that are asked for there come once."""
    for name in ("/dev/stdout", "-"):
        result = execute("tokenize", "hello", "-o", name, cwd=here, CLVP_MODEL=str(tiny_model))
        assert len(result.records) == 1
