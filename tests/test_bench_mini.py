"""`clvp bench mini`: every part gives its figures, evaluators are asked for only where they are needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_data import fake_evaluators, judging_data
from command_line import Cli, read_jsonl

from clvp_cli.bench import mini as bench
from clvp_cli.bench.evaluators import Recogniser
from clvp_cli.bench.figures import DUES, Figure


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Made-up speech for judging."""
    return judging_data(tmp_path / "data")


def test_parts_without_an_evaluator_need_none(cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retrieval, damage and codebook use are told where no evaluator is installed; a notice tells the rest."""
    monkeypatch.setattr(bench, "is_there", lambda name: False)
    monkeypatch.setattr(bench, "PARTS", {k: v for k, v in bench.PARTS.items() if k not in ("best-of-n", "time")})
    result = cli.fine("bench", "mini", "--data", data, "-o", "figures.jsonl")
    records = read_jsonl(Path("figures.jsonl"))
    assert result.records == records
    assert {r["figure"].split(".")[0] for r in records} == {"retrieval", "damage", "codec"}
    assert {r["figure"] for r in records if r["figure"].startswith("codec")} == {
        "codec.codebook_used", "codec.codebook_share", "codec.codebook_perplexity",
    }  # fmt: skip
    assert "hama is not installed" in result.err and "clvp[bench]" in result.err
    due = [r for r in records if r["figure"] == "damage.due" and r["set"] == "all" and r["by"] == "ranking"]
    assert len(due) == 1 and due[0]["n"] == 9 and due[0]["pairs"] == 36 and due[0]["floor"] == 0.88


def test_a_part_asked_for_by_name_must_be_possible(cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named part whose evaluator is missing, or that is unknown, is a usage error that says what to do."""
    monkeypatch.setattr(bench, "is_there", lambda name: False)
    result = cli("bench", "mini", "--data", data, "--only", "codec")
    assert result.code == 2 and "hama" in result.complaint[0] and "clvp[bench]" in result.complaint[1]
    result = cli("bench", "mini", "--data", data, "--only", "retrieval,beauty")
    assert result.code == 2 and "beauty" in result.complaint[0] and "retrieval" in result.complaint[1]


def test_codec_candidates_and_voices_are_judged_from_outside(
    cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With evaluators at hand: error rates before and after the codec, best-of-N with its candidates, likeness."""
    fake_evaluators(monkeypatch)
    asked = ["--only", "codec,best-of-n,voice,opinion", "-n", "2", "--max-codes", "8", "--save-candidates", "all.jsonl"]
    records = cli.fine("bench", "mini", "--data", data, *asked).records
    found = {(r["figure"], r["set"], r["by"]): r for r in records}
    assert found["codec.per_added", "all", "hama"]["n"] == 9
    assert found["codec.per_original", "dev/one", "hama"]["n"] == 3
    assert found["decoder.stopped", "all", ""]["value"] == 0.0
    assert found["best-of-n.per", "all", "oracle"]["value"] <= found["best-of-n.per", "all", "random"]["value"]
    assert ("best-of-n.per_at_2", "all", "clvp") in found and ("best-of-n.per_at_4", "all", "clvp") not in found
    assert found["voice.own_above_other", "all", "resemblyzer"]["pairs"] > 0
    assert found["opinion.mos_original", "all", "distillmos"]["value"] == 3.0
    kept = read_jsonl(Path("all.jsonl"))
    assert len(kept) == 2 * found["best-of-n.per", "all", "oracle"]["n"]
    assert all(len(record["codes"]) == 8 and record["per"] is not None for record in kept)


def test_the_time_of_a_whole_process_is_told(data: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The median of the runs, with the fastest and the slowest and the processor's time."""
    from command_line import environment

    from clvp_cli.pipeline import Clvp

    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLVP_SAMPLING_MAX_CODES", "4")
    monkeypatch.setattr(bench, "RUNS", 1)
    (figure,) = bench.evaluate(Clvp.load(tiny_model), data, "time")
    assert figure.low == figure.value == figure.high and figure.value > 0 and figure.more["cpu_seconds"] > 0


def test_an_error_rate_is_edits_a_phoneme(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is heard against what is said, punctuation left out, each clip recognised once."""
    import numpy as np

    fake_evaluators(monkeypatch)
    recogniser = Recogniser()
    sound = np.zeros(16000, np.float32)  # heard as g o t h
    assert recogniser.error_rate(sound, 16000, "Goth!") == 0.0
    assert recogniser.error_rate(sound, 16000, "goat") == pytest.approx(0.5)
    assert recogniser.error_rate(np.zeros(44100, np.float32), 44100, "goth") == 0.0
    assert recogniser.said("it's... a") == [*"it's", "a"]


def test_a_figure_says_what_it_met() -> None:
    """Above the goal, above the floor or below, on the side that is good; only over all sets."""
    assert Figure("retrieval.random", 0.99, 10, by="ranking").met == "goal"
    assert Figure("retrieval.random", 0.96, 10, by="ranking").met == "floor"
    assert Figure("codec.per_added", 0.26, 10, by="hama").met == "below"
    assert Figure("codec.per_added", 0.10, 10, by="hama").met == "goal"
    assert Figure("best-of-n.recovery", float("nan"), 10, by="ranking").record()["value"] is None
    assert Figure("retrieval.random", 0.99, 10, set="dev/one", by="ranking").met is None
    assert ("damage.due", "ranking") in DUES
