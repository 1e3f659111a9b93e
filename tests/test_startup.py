"""What starts fast: light commands load no torch, and help is there at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment, program

PROBE = """
import sys
{work}
heavy = sorted({{name.partition('.')[0] for name in sys.modules}} & {{{unwanted}}})
print("LOADED", *heavy, file=sys.stderr)
"""
HEAVY = ("torch", "librosa", "scipy", "transformers", "matplotlib", "pyarrow", "huggingface_hub")
RUN = """
import clvp_cli.__main__ as program
try:
    program.main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
"""


def loaded(work: str, cwd: Path, unwanted: tuple[str, ...] = HEAVY, **more: str) -> list[str]:
    """Which of `unwanted` a fresh interpreter has loaded after `work`."""
    code = PROBE.format(work=work, unwanted=", ".join(map(repr, unwanted)))
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=cwd, env=environment(**more), timeout=60
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stderr.decode().rpartition("LOADED")[2].split()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["generate", "--help"],
        ["tokenize", "x"],
        ["config", "show"],
        ["config", "list"],
        ["model", "info"],
    ],
    ids=" ".join,
)
def test_light_commands_load_no_torch(arguments: list[str], tiny_model: Path, tmp_path: Path) -> None:
    """Help, tokenize, config and model info read neither torch nor any other heavy library."""
    assert loaded(RUN.format(arguments=arguments), tmp_path, CLVP_MODEL=str(tiny_model)) == []


def test_extract_mels_loads_no_torch(tiny_model: Path, tmp_path: Path) -> None:
    """Mels are made without torch."""
    import soundfile
    from command_line import tone

    soundfile.write(tmp_path / "voice.wav", tone(), 22050)
    work = RUN.format(arguments=["extract-mels", "voice.wav", "-o", "out.npy"])
    assert loaded(work, tmp_path, ("torch",), CLVP_MODEL=str(tiny_model)) == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["score", "--help"]], ids=" ".join)
def test_help_loads_not_even_numpy(arguments: list[str], tmp_path: Path) -> None:
    """Help and version read nothing but the command line itself."""
    assert loaded(RUN.format(arguments=arguments), tmp_path, (*HEAVY, "numpy", "yaml", "rich")) == []


def test_the_import_loads_nothing_heavy(tmp_path: Path) -> None:
    """`import clvp_cli` alone, and its plain names, load neither torch nor numpy."""
    assert loaded("import clvp_cli; clvp_cli.ClvpError; dir(clvp_cli)", tmp_path, (*HEAVY, "numpy")) == []


def test_reranking_saved_scores_loads_no_torch(tmp_path: Path) -> None:
    """Records can be ranked anew by other weights without a model."""
    work = """
import numpy as np
from clvp_cli.ranking import parse_rank_by, rank
from clvp_cli.records import Candidate, Scored
made = [Scored(Candidate(np.array([1, 2]), True, i), {"clvp": float(i), "alignment": -2.0 * i}) for i in range(3)]
assert [r.scored.candidate.index for r in rank(made)] == [2, 1, 0]
assert [r.scored.candidate.index for r in rank(made, parse_rank_by("alignment+0.2*clvp"))] == [0, 1, 2]
"""
    assert loaded(work, tmp_path) == []


def test_help_is_there_at_once(tmp_path: Path) -> None:
    """`clvp --help` takes less than 0.3 s of a processor, the best of three; other programs' load does not count."""
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run(program("--help"), capture_output=True, cwd=tmp_path, env=environment(), check=True, timeout=30)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.3, times


def test_cycles_are_looked_for_from_the_first_record_on(tmp_path: Path) -> None:
    """What is loaded is not searched; what is done with it is."""
    code = RUN.format(arguments=["tokenize", "x"]) + "import gc; assert gc.isenabled() and gc.get_freeze_count()"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=tmp_path, env=environment(), timeout=60
    )
    assert ended.returncode == 0, ended.stderr.decode()
