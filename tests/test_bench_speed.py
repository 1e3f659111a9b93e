"""The speed bench on a tiny model: every record is there, and what is measured is what is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import read_jsonl

from clvp_cli.bench import speed, speed_agreement, speed_chart, speed_machine
from clvp_cli.checkpoints.random import random_directory
from clvp_cli.errors import UsageError
from clvp_cli.pipeline import Clvp
from clvp_cli.settings import Settings


@pytest.fixture(scope="module")
def clvp(tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "model"
    random_directory(path, "tiny")
    return Clvp.load(path, Settings(dtype="float32"))


@pytest.fixture
def small(monkeypatch):
    """Sizes that are done at once."""
    monkeypatch.setattr(speed_machine, "READ_BYTES", 2**20)
    monkeypatch.setattr(speed_machine, "SHAPE", (32, 32, 32))
    monkeypatch.setattr(speed, "SCORED", 3)
    monkeypatch.setattr(speed, "LENGTHS", (5, 9))


def test_every_measure_has_its_record(clvp, small):
    """Bounds, prefill, steps, codes and scores are told with medians between their least and largest."""
    plan = speed.planned(2, 4, 1, None, "generate,score")
    made = list(speed.measure(clvp, plan))
    assert [r["measure"] for r in made] == [
        "memory read", "products", "products", "prefill", "steps", "generate", "steps", "generate", "score",
    ]  # fmt: skip
    assert all(r["low"] <= r["median"] <= r["high"] for r in made if "low" in r)
    assert [r["n"] for r in made if r["measure"] == "generate"] == [2, 1]
    assert all(r["fraction"] > 0 for r in made if r["measure"] in ("steps", "score"))


def test_growth_is_told_over_both(clvp, small, monkeypatch):
    """Seconds for every N at the fewest codes, then for every number of codes at the plan's N."""
    monkeypatch.setattr(speed, "GROWING_N", (1, 2))
    monkeypatch.setattr(speed, "GROWING_CODES", (3, 4))
    made = [r for r in speed.measure(clvp, speed.planned(2, 4, 1, None, "growth")) if r["measure"] == "growth"]
    assert [(r["n"], r["codes"]) for r in made] == [(1, 3), (2, 3), (2, 3), (2, 4)]


class FakePeer:
    """Counts what a peer is asked to score."""

    name, seen = "peer", []

    def __init__(self, path, dtype):
        pass

    def score(self, ids, codes, *, text_each=False):
        self.seen.append((codes.shape, text_each))
        return np.zeros(len(codes), np.float32)


def test_peers_score_padded_candidates(clvp, small, monkeypatch):
    """A peer is given candidates one by one as they are, to compare the scores, then padded to the longest of all
    with the text once, then to Tortoise's length with the text each."""
    monkeypatch.setattr(speed, "Transformers", FakePeer)
    monkeypatch.setattr(speed, "PEERS", 2)
    made = list(speed.measure(clvp, speed.planned(2, 4, 1, "transformers", "score")))
    lengths = [c.length + 1 for c in speed.candidates(clvp)]
    alone = [((1, length), False) for length in lengths[:2]]
    assert FakePeer.seen == [*alone, ((2, max(lengths)), False), ((2, speed.TORTOISE_LENGTH), True)]
    assert all(0 < r["median"] <= 1 for r in made if r["measure"] == "score difference")
    theirs = [r for r in made if r["measure"] == "score" and r["system"].startswith("peer")]
    assert len(theirs) == 2 and all(r["ours_over_it"] > 0 for r in theirs)


def test_loading_is_timed_in_a_process_of_its_own(clvp):
    """A child process loads the part and tells seconds and bytes."""
    seconds, peak = speed_machine.loading(clvp.core.path, "float32", "text_encoder", 1)
    assert len(seconds) == 1 and seconds[0] > 0 and peak >= 0


def test_systems_take_turns():
    """Runs alternate, each system warmed up once before."""
    seen = []
    speed.alternate([lambda: seen.append("a"), lambda: seen.append("b")], 2)
    assert seen == ["a", "b", "a", "b", "a", "b"]


@pytest.mark.parametrize(("against", "only"), [("tortoise", None), (None, "load,dancing")])
def test_what_is_not_known_is_refused(against, only):
    """An unknown peer or part is a usage error before any work."""
    with pytest.raises(UsageError):
        speed.planned(1, 2, 1, against, only)


def test_agreement_with_itself_is_perfect(clvp, monkeypatch):
    """float32 against float32 has tau 1, the same best candidates and no divergence; int8 stays near."""
    monkeypatch.setattr(speed_agreement, "EACH", 4)
    monkeypatch.setattr(speed_agreement, "CODES", 6)
    voice = np.zeros(64, dtype=np.float32)
    same, near = speed_agreement.agreement(clvp, ["float32", "bfloat16"], voice, ["hello there"])
    assert (same["tau"], same["top1"], same["kl"]) == (1.0, 1.0, 0.0)
    assert near["kl"] < 1e-2 and near["score_difference"] < 0.2


def test_the_command_tells_and_draws(cli, clvp, small):
    """`clvp bench speed` writes the records it prints, and a picture of them."""
    pytest.importorskip("matplotlib")
    result = cli.fine(
        "bench", "speed", "-m", clvp.core.path, "-n", 2, "--codes", 3, "--repeats", 1, "--only", "generate,score",
        "--plot", "speed.png", "-o", "speed.jsonl",
    )  # fmt: skip
    assert result.records == read_jsonl(Path("speed.jsonl"))
    assert {record["measure"] for record in result.records} >= {"memory read", "prefill", "generate", "score"}
    assert Path("speed.png").read_bytes().startswith(b"\x89PNG")


def test_kendall_counts_pairs():
    """One swapped neighbour of four costs a third."""
    assert speed_agreement.kendall(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(2 / 3)


def test_a_chart_is_a_png(tmp_path):
    """Bars of both measures, and both lines of growth, are drawn into one picture."""
    pytest.importorskip("matplotlib")
    rows = [
        {"measure": name, "system": "clvp", "dtype": "float32", "n": 2, "median": 2.0, "low": 1.0, "high": 3.0}
        for name in ("generate", "score")
    ]
    rows += [
        {"measure": "growth", "n": n, "codes": codes, "median": 1.0} for n, codes in ((1, 5), (2, 5), (2, 9), (2, 7))
    ]
    speed_chart.draw(rows, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
