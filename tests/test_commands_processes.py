"""The program as a process of its own: pipes, signals, exit codes, tracebacks only when asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
from command_line import SHORT, Cli, Result, environment, execute, littered, program, read_jsonl, strict_json, tone

LONG = ("-n", "64", "--min-codes", "400", "--max-codes", "500", "--batch-size", "1")  # more than a test would wait for


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with a reference voice and some lines."""
    import soundfile

    soundfile.write(tmp_path / "voice.wav", tone(), 22050)
    (tmp_path / "lines.txt").write_text("One line.\nAnother line.\nA third line.\n")
    np.save(tmp_path / "good.npy", np.array([[1, 2, 3], [4, 5, 6]]))
    return tmp_path


def shell(line: str, cwd: Path, model: Path) -> Result:
    """Run a line of shell in which `clvp` is the program."""
    import shlex

    run = " ".join(map(shlex.quote, program()))
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; clvp() {{ {run} \"$@\"; }}; {line}"],
        capture_output=True, cwd=cwd, env=environment(CLVP_MODEL=str(model)), timeout=60,
    )  # fmt: skip
    return Result(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def interrupt(arguments: list[str], cwd: Path, model: Path, begun: str) -> Result:
    """Start the program, send Ctrl-C once a file or a first line shows that it works, and wait for its end."""
    process = subprocess.Popen(
        program(*arguments), cwd=cwd, env=environment(CLVP_MODEL=str(model)), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout and process.stderr
    said = ""
    if begun == "notice":  # the seed is told when the model is loaded and generating begins
        said = process.stderr.readline()
        time.sleep(0.3)
    else:
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return Result(process.returncode, out, said + err)


@pytest.mark.parametrize("command", ["generate-candidates", "generate"])
def test_ctrl_c_leaves_what_was_there(command: str, here: Path, tiny_model: Path) -> None:
    """Ctrl-C in the middle ends with 130 and two lines; the earlier output stays and nothing else is left."""
    (here / "out.npz").write_bytes(b"earlier")
    before = sorted(here.iterdir())
    result = interrupt([command, "-t", "Hello.", "-r", "voice.wav", *LONG, "-o", "out.npz"], here, tiny_model, "notice")
    assert result.code == 130
    assert result.complaint[0] == "error: interrupted" and len(result.complaint) <= 2
    assert "Traceback" not in result.err
    assert (here / "out.npz").read_bytes() == b"earlier" and sorted(here.iterdir()) == before


def test_ctrl_c_keeps_finished_texts_and_resume_goes_on(here: Path, tiny_model: Path, cli: Cli) -> None:
    """A job of many texts leaves its finished texts in a .part, which --resume makes whole."""
    job = ["generate-candidates", "-f", "lines.txt", "-r", "voice.wav", "-n", "3", "--batch-size", "1"]
    job += ["--min-codes", "100", "--max-codes", "120", "-o", "out.jsonl"]
    result = interrupt(job, here, tiny_model, "record")
    assert result.code == 130 and "--resume" in result.complaint[1]
    assert not (here / "out.jsonl").exists() and (here / "out.jsonl.part").exists()
    again = cli(*job)
    assert again.code == 2 and "--resume" in again.complaint[1]
    cli.fine(*job, "--resume", "-q")
    assert not (here / "out.jsonl.part").exists()
    records = read_jsonl(here / "out.jsonl")
    assert [(record["line"], record["index"]) for record in records] == [(a, b) for a in (1, 2, 3) for b in (0, 1, 2)]


def open_ended(cwd: Path, model: Path, **more: Any) -> subprocess.Popen[bytes]:
    """A program in the middle of writing out.jsonl: it has answered one line and waits for another."""
    process = subprocess.Popen(
        program("tokenize", "-f", "-", "-o", "out.jsonl"), cwd=cwd, env=environment(CLVP_MODEL=str(model)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip
    assert process.stdin and process.stdout
    process.stdin.write(b"hello\n")
    process.stdin.flush()
    assert strict_json(process.stdout.readline().decode())["text"] == "hello"
    return process


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGTERM, b"error: terminated\n"), (signal.SIGHUP, b"error: hung up\n")]
)
def test_other_signals_clean_up_as_ctrl_c_does(
    number: signal.Signals, said: bytes, here: Path, plain_model: Path
) -> None:
    """SIGTERM and SIGHUP, even twice, leave what was there, say so in a line, and are what the program dies of."""
    (here / "out.jsonl").write_bytes(b"earlier")
    before = sorted(here.iterdir())
    process = open_ended(here, plain_model)
    assert list(littered(here))
    process.send_signal(number)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (-number, b"") and err in (said, b"")  # the second may be faster than the line
    assert (here / "out.jsonl").read_bytes() == b"earlier" and sorted(here.iterdir()) == before


def test_under_nohup_a_hangup_is_ignored(here: Path, plain_model: Path) -> None:
    """A signal that was ignored when the program began stays ignored."""
    process = open_ended(here, plain_model, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(b"world\n", timeout=30)
    assert (process.returncode, strict_json(out.decode())["text"], err) == (0, "world", b"")
    assert len(read_jsonl(here / "out.jsonl")) == 2


def test_ctrl_c_before_a_command_begins_is_silent(here: Path) -> None:
    """While commands are imported, Ctrl-C ends the program without a word."""
    code = """
import signal, sys
from clvp_cli.__main__ import main
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name.endswith("commands.bench"):
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
main()
"""
    ended = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, cwd=here, env=environment())
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, b"", b"")


def test_whoever_calls_the_program_keeps_his_signals(cli: Cli) -> None:
    """A command line that is run within another program changes no handler."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    cli.fine("tokenize", "hello")
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize(
    "line",
    [
        "clvp tokenize -f long.txt | head -1",
        "clvp generate-candidates -t Hello -r voice.wav -n 200 --max-codes 3 -o - | head -1",
        "clvp config show | head -1",
    ],
)
def test_a_reader_that_leaves_is_no_failure(line: str, here: Path, tiny_model: Path) -> None:
    """`| head -1` gets its line, and the program ends quietly with 0."""
    (here / "long.txt").write_text("Hello.\n" * 20_000)
    result = shell(line, here, tiny_model)
    assert result.code == 0 and len(result.records) == 1
    assert "error" not in result.err and "Traceback" not in result.err


def test_pipelines_stream_from_end_to_end(here: Path, tiny_model: Path) -> None:
    """Texts go through tokenize and back, and candidates into score, over pipes alone."""
    back = shell(
        "printf 'hello world\\nhow are you\\n' | clvp tokenize -f - | clvp tokenize --decode -f -", here, tiny_model
    )
    assert [record["text"] for record in back.records] == ["hello world", "how are you"]
    made = "clvp generate-candidates -f lines.txt -r voice.wav -n 3 --max-codes 5 -o -"
    many = shell(f"{made} | clvp score - -k 1", here, tiny_model)
    assert [(record["line"], record["rank"]) for record in many.records] == [(1, 1), (2, 1), (3, 1)]


def test_a_line_is_answered_as_soon_as_it_comes(here: Path, tiny_model: Path) -> None:
    """tokenize answers a line while its writer is still at work."""
    process = subprocess.Popen(
        program("tokenize", "-f", "-"), cwd=here, env=environment(CLVP_MODEL=str(tiny_model)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin and process.stdout
    watchdog = Timer(30, process.kill)  # a program that waits for the end of its input would wait for ever
    watchdog.start()
    for text in ("hello", "world"):
        process.stdin.write(f"{text}\n".encode())
        process.stdin.flush()
        assert strict_json(process.stdout.readline().decode())["text"] == text
    watchdog.cancel()
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_closed_stdin_is_an_error_and_no_traceback(here: Path, tiny_model: Path) -> None:
    """`clvp score - <&-` says that there is nothing to read."""
    result = shell("clvp score - -t Hello <&-", here, tiny_model)
    assert result.code == 1 and len(result.complaint) <= 2 and "Traceback" not in result.err


def test_errors_never_reach_stdout(here: Path, tiny_model: Path) -> None:
    """With stderr closed they go nowhere, and the exit code alone tells of them."""
    for line, code in {"score nowhere.npy -t Hello": 1, "score --bogus": 2, "": 2, "tokenize --decode hi": 1}.items():
        result = shell(f"clvp {line} 2>&-", here, tiny_model)
        assert (result.code, result.out, result.err) == (code, "", ""), line
    assert shell("clvp tokenize hello 2>&-", here, tiny_model).records[0]["text"] == "hello"


def test_a_file_is_written_where_stdout_is_closed(here: Path, tiny_model: Path) -> None:
    """-o needs no stdout; no file that is opened takes its place."""
    for closed in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
        result = shell(f"clvp score good.npy -t Hello -o out.jsonl {closed}", here, tiny_model)
        assert result.code == 0 and "error" not in result.err
        assert len(read_jsonl(here / "out.jsonl")) == 2
        (here / "out.jsonl").unlink()
    for out in ("", "-o -"):
        assert "stdout is closed" in shell(f"clvp score good.npy -t Hello {out} >&-", here, tiny_model).complaint[0]


def test_a_terminal_of_few_characters_gets_its_table(here: Path, plain_model: Path) -> None:
    """What an encoding lacks is escaped in a table, and a width of 0 is none."""
    more = {"CLVP_MODEL": str(plain_model), "PYTHONIOENCODING": "ascii", "COLUMNS": "0"}
    result = execute("tokenize", "café", "--table", cwd=here, **more)
    assert (result.code, result.err) == (0, "") and "caf\\xe9" in result.out


def test_arguments_that_are_not_utf8(here: Path, cli: Cli) -> None:
    """A text of stray bytes is refused, and so is a file name of such where names are kept."""
    done = cli("tokenize", os.fsdecode(b"caf\xff"))
    assert done.code == 2 and "not text in the terminal's encoding" in done.complaint[0]
    name = os.fsdecode(b"v\xff.wav")
    (here / name).write_bytes((here / "voice.wav").read_bytes())
    done = cli("extract-mels", "voice.wav", name, "-o", "out.npz")
    assert done.code == 1 and "not UTF-8" in done.complaint[0] and not list(littered(here))


def test_a_full_disk_on_stdout_is_told(here: Path, tiny_model: Path) -> None:
    """Records that stdout cannot take end in an error, not in silence."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    result = shell("clvp tokenize hello > /dev/full", here, tiny_model)
    assert result.code == 1 and "full" in result.complaint[0] and len(result.err.splitlines()) <= 2


def test_a_traceback_comes_only_with_debug(here: Path, tiny_model: Path) -> None:
    """--debug, anywhere on the line, shows where an error came from; the exit code stays a failure."""
    plain = execute("score", "nowhere.npy", "-t", "Hello", cwd=here, CLVP_MODEL=str(tiny_model))
    assert plain.code == 1 and "Traceback" not in plain.err
    debugged = execute("score", "nowhere.npy", "-t", "Hello", "--debug", cwd=here, CLVP_MODEL=str(tiny_model))
    assert debugged.code == 1 and "Traceback" in debugged.err and "nowhere.npy: no such file" in debugged.err


def test_nothing_is_left_behind(here: Path, cli: Cli) -> None:
    """A command that succeeds leaves its output and no temporary file."""
    job = ("generate", "-f", "lines.txt", "-r", "voice.wav", "-n", "2", *SHORT)
    cli.fine(*job, "-o", "out.jsonl", "--wav", "{line}.wav")
    assert list(littered(here)) == []
    assert {path.name for path in here.iterdir()} >= {"out.jsonl", "1.wav", "2.wav", "3.wav"}


def test_the_module_and_the_script_are_the_same_program(here: Path) -> None:
    """`python -m clvp_cli` and `clvp` give the same help and version."""
    import shutil

    script = Path(sys.executable).with_name("clvp")
    if not script.exists() and not shutil.which("clvp"):
        pytest.skip("the program is not installed")
    command = str(script if script.exists() else shutil.which("clvp"))
    for arguments in (["--help"], ["--version"], ["score", "--help"]):
        ended = subprocess.run([command, *arguments], capture_output=True, cwd=here, env=environment(), timeout=30)
        module = execute(*arguments, cwd=here)
        assert (module.code, module.out) == (ended.returncode, ended.stdout.decode()) and module.out
    assert os.path.basename(command) == "clvp"  # noqa: PTH119 - a name, not a path


def test_stdin_is_read_once(here: Path, tiny_model: Path, cli: Cli) -> None:
    """Two inputs that both name stdin are a usage error before anything is read."""
    for line in (
        ("score", "-", "-f", "-"),
        ("score", "-", "-", "-t", "x"),
        ("generate", "-f", "-", "-r", "-"),
        ("generate-candidates", "-f", "-", "-r", "-"),
        ("extract-mels", "-", "-"),
    ):
        done = cli(*line)
        assert done.code == 2 and "standard input can be read once" in done.err
