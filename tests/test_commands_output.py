"""How the program speaks: tables for people, JSONL for programs, notices on stderr, settings with their origins."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import TEXT, Cli, environment, program, tone

pty = pytest.importorskip("pty", reason="pseudo-terminals are a thing of Unix")


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Path:
    """A directory with a voice and two candidates."""
    import soundfile

    soundfile.write(tmp_path / "voice.wav", tone(), 22050)
    np.save(tmp_path / "two.npy", np.array([[1, 2, 3], [4, 5, 6]]))
    return tmp_path


def at_terminal(*arguments: str, cwd: Path, model: Path, columns: int = 100, **more: str) -> str:
    """What a person at a terminal sees: stdout and stderr together."""
    ours, theirs = pty.openpty()
    env = environment(CLVP_MODEL=str(model), COLUMNS=str(columns), TERM="xterm-256color", **more)
    process = subprocess.Popen(program(*arguments), cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(ours)
    assert process.wait(timeout=30) == 0, seen.decode()
    return seen.decode().replace("\r\n", "\n")


def test_a_person_sees_a_table(here: Path, tiny_model: Path) -> None:
    """At a terminal records are a table with a heading, and colour is left out where NO_COLOR asks for that."""
    seen = at_terminal("tokenize", "hello world", cwd=here, model=tiny_model)
    assert "normalized" in seen and "hello world" in seen and "{" not in seen
    plain = at_terminal("config", "list", cwd=here, model=tiny_model, NO_COLOR="1")
    assert "\x1b[3" not in plain and "tortoise" in plain


def test_json_is_for_programs_at_a_terminal_too(here: Path, tiny_model: Path) -> None:
    """--json gives JSONL to a terminal."""
    seen = at_terminal("tokenize", "hello", "--json", cwd=here, model=tiny_model)
    assert seen.startswith('{"text": "hello"') and seen.count("\n") == 1


def test_the_progress_bar_does_not_run_into_the_table(here: Path, tiny_model: Path) -> None:
    """The bar is gone before the table is drawn: the heading begins a line of its own."""
    job = ("generate", "-t", TEXT, "-r", "voice.wav", "-n", "2", "-k", "2", "--max-codes", "30")
    seen = at_terminal(*job, cwd=here, model=tiny_model)
    heading = next(line for line in seen.split("\n") if "cosine" in line)
    assert "candidates" not in heading.rpartition("\x1b[2K")[2]
    assert seen.rstrip().split("\n")[-1].startswith("2 ")  # the last row is the last thing seen


def test_a_table_on_request(cli: Cli) -> None:
    """--table draws one into a pipe."""
    out = cli.fine("score", "two.npy", "-t", TEXT, "--table").out
    assert "rank" in out.splitlines()[0] and len(out.splitlines()) == 3


WILD = "a\x1b[31mb\rc\bd\u202ee\x9b1mf\ng:smile:"
TAME = r"a\x1b[31mb\rc\x08d\u202ee\x9b1mf\ng:smile:"


def test_a_table_shows_what_would_steer_the_terminal(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Escapes, carriage returns and bidirectional controls are written out in a table; records keep them."""
    monkeypatch.setenv("COLUMNS", "200")
    (here / "wild.jsonl").write_text(json.dumps({"codes": [1, 2], "text": WILD}) + "\n")
    assert TAME in cli.fine("score", "wild.jsonl", "--table").out
    assert cli.fine("score", "wild.jsonl").records[0]["text"] == WILD


def test_an_error_shows_what_would_steer_the_terminal(cli: Cli, here: Path) -> None:
    """So it is with names in errors, of files that are there and of files that are not, and in warnings."""
    for name in ("a\x1b[2Jb\u202ec.npy", "\udcff.npy"):
        said = cli("score", name, "-t", TEXT).complaint[0]
        assert ascii(name)[1:-1] in said and said.isprintable()
    (here / "\x1b[2J.npz").write_bytes(b"none")
    assert r"\x1b[2J.npz: not" in cli("score", "\x1b[2J.npz", "-t", TEXT).complaint[0]


def test_notices_go_to_stderr_and_quiet_hushes_them(cli: Cli) -> None:
    """The seed is told on stderr; -q says nothing; -v says more; stdout stays the same."""
    job = ("generate", "-t", TEXT, "-r", "voice.wav", "-n", "2", "--max-codes", "5")
    plain, quiet, verbose = cli.fine(*job), cli.fine(*job, "-q"), cli.fine(*job, "-v")
    assert "seed 20240229" in plain.err and quiet.err == ""
    assert "loading the decoder" in verbose.err and "loading" not in plain.err
    assert plain.out == quiet.out == verbose.out


def test_no_progress_bar_off_a_terminal(cli: Cli) -> None:
    """No animation reaches a file or a pipe."""
    err = cli.fine("generate", "-t", TEXT, "-r", "voice.wav", "-n", "2", "--max-codes", "5").err
    assert "\x1b" not in err and "\r" not in err and len(err.splitlines()) == 1


def test_config_show_tells_where_each_value_came_from(
    cli: Cli, here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags > environment > --config > the user's file > defaults, and each value names its origin."""
    (here / "user.yaml").write_text("seed: 1\nsampling: {n: 1, top_k: 1, top_p: 0.1, temperature: 1.5}\n")
    (here / "mine.yaml").write_text("sampling: {n: 2, top_k: 2, top_p: 0.2}\n")
    monkeypatch.setenv("CLVP_USER_CONFIG", "user.yaml")
    monkeypatch.setenv("CLVP_SAMPLING_TOP_K", "3")
    records = cli.fine("config", "show", "-c", "mine.yaml", "-n", "4").records
    rows = {record["setting"]: (record["value"], record["origin"]) for record in records}
    assert rows["sampling.n"] == (4, "command line")
    assert rows["sampling.top_k"] == (3, "environment")
    assert rows["sampling.top_p"] == (0.2, "mine.yaml")
    assert rows["sampling.temperature"] == (1.5, "user.yaml") and rows["seed"] == (1, "user.yaml")
    assert rows["sampling.max_codes"] == (500, "default")
    assert rows["model"] == (str(tiny_model), "environment")


def test_later_configurations_win(cli: Cli) -> None:
    """-c is repeatable: a preset after a profile changes what it names alone."""
    records = cli.fine("config", "show", "-c", "tortoise", "-c", "fast").records
    rows = {record["setting"]: (record["value"], Path(record["origin"]).stem) for record in records}
    assert rows["sampling.n"] == (96, "fast") and rows["text.normalizer"] == ("tortoise", "tortoise")


def test_config_list_names_what_is_shipped(cli: Cli) -> None:
    """Every shipped configuration is listed with its file."""
    records = cli.fine("config", "list").records
    assert {"default", "hf", "tortoise", "fast"} <= {record["name"] for record in records}
    assert all(Path(record["file"]).is_file() for record in records)


@pytest.mark.parametrize("arguments", [[], ["config"], ["model"]], ids=lambda arguments: " ".join(arguments) or "alone")
def test_no_arguments_is_help_on_stderr(arguments: list[str], cli: Cli) -> None:
    """A command that needs more shows its help, as itself and not as an error, and ends with 2."""
    result = cli(*arguments)
    assert result.code == 2 and result.out == "" and result.err.startswith("Usage: clvp")
    assert len(result.err.splitlines()) > 5


def test_version_and_help(cli: Cli) -> None:
    """--version is one line; -h works wherever --help does."""
    assert cli.fine("--version").out.startswith("clvp ")
    assert cli.fine("score", "-h").out == cli.fine("score", "--help").out


@pytest.mark.parametrize("line", ["generate", "score", "tokenize", "extract-mels", "voice", "encode", "decode"])
def test_help_begins_with_what_it_does_and_an_example(line: str, cli: Cli) -> None:
    """Every command's help has a line to copy, and no name of a Python type in its options."""
    out = cli.fine(line, "--help").out
    assert f"\n  clvp {line} " in out or "| clvp " in out
    assert all("<" not in option for option in out.splitlines() if option.startswith("  -") and "seconds" not in option)


def test_the_module_does_not_touch_the_callers_settings(cli: Cli) -> None:
    """A command leaves the environment and the interpreter's hooks as they were."""
    before = dict(os.environ), sys.excepthook
    cli.fine("tokenize", "hello")
    assert (dict(os.environ), sys.excepthook) == before
