"""Best-of-N from candidates whose worth is known: picks, recovery, tests and stops come out as they must."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clvp_cli.bench.best_of_n import Pool, best_of_n, sentences, stopping, voices
from clvp_cli.bench.figures import Figure
from clvp_cli.bench.material import Clip, Material
from clvp_cli.errors import InputError
from clvp_cli.pipeline import Clvp
from clvp_cli.records import Candidate


def clip(place: int, words: int = 6, speaker: str = "a", name: str = "dev/x", seconds: float = 4.0) -> Clip:
    """A clip that needs no file."""
    return Clip(Path(f"{name}-{place}.wav"), name, speaker, seconds, " ".join(["word"] * words))


def pool(place: int, rates: list[float], ranking: list[float], lengths: list[int] | None = None) -> Pool:
    """A sentence with candidates of these error rates and scores; 20 codes are expected."""
    codes = [np.zeros(n, np.int64) for n in lengths or [20] * len(rates)]
    made = [Candidate(row, len(row) < 100, index) for index, row in enumerate(codes)]
    scores = {"ranking": np.array(ranking), "clvp": np.array(ranking), "other": np.array(ranking[::-1])}
    return Pool(clip(place), clip(place), made, scores, 20.0, np.array(rates), 0.1)


def by_name(figures: list[Figure]) -> dict[tuple[str, str], Figure]:
    """Figures by name and judge."""
    return {(f.figure, f.by): f for f in figures}


def test_picks_recovery_and_tests() -> None:
    """A ranking that always finds the best recovers all; its reverse loses; the oracle is held to the codec."""
    rng = np.random.default_rng(3)
    rates = [sorted(rng.random(4).tolist()) for _ in range(20)]
    found = by_name(list(best_of_n([pool(i, r, [4, 3, 2, 1]) for i, r in enumerate(rates)], seed=1)))
    best, mean = np.mean([r[0] for r in rates]), np.mean(rates)
    assert found["best-of-n.per", "random"].value == pytest.approx(mean)
    assert found["best-of-n.per", "oracle"].value == found["best-of-n.per", "ranking"].value == pytest.approx(best)
    assert found["best-of-n.recovery", "ranking"].value == pytest.approx(1.0)
    assert found["best-of-n.recovery", "other"].value < 0
    assert found["best-of-n.oracle_over_codec", "oracle"].value == pytest.approx(best - 0.1)
    assert found["best-of-n.p", "ranking"].met == "floor" and found["best-of-n.p", "ranking"].value < 0.001
    assert found["best-of-n.p", "other"].value == 1.0
    assert found["best-of-n.p", "clvp"].value == found["best-of-n.p", "ranking"].value


def test_more_candidates_never_harm_the_oracle() -> None:
    """Against N the oracle's rate falls from the mean to the best; N stops at the size of the pool."""
    rates = np.random.default_rng(4).random((10, 4)).tolist()
    found = by_name(list(best_of_n([pool(i, r, [1, 2, 3, 4]) for i, r in enumerate(rates)], seed=1)))
    curve = [found[f"best-of-n.per_at_{n}", "oracle"].value for n in (1, 2, 4)]
    assert curve == sorted(curve, reverse=True) and curve[0] == pytest.approx(np.mean(rates))
    assert ("best-of-n.per_at_8", "oracle") not in found


def test_stops_count_within_twice_the_expected_length() -> None:
    """A candidate without a stop, or longer than 40 codes where 20 are expected, has not stopped by itself."""
    found = by_name(list(stopping([pool(0, [0] * 4, [0] * 4, [20, 40, 41, 100]), pool(1, [0] * 4, [0] * 4)], seed=1)))
    figure = found["decoder.stopped", ""]
    assert figure.value == pytest.approx(0.75) and figure.n == 2 and figure.more["candidates"] == 8


def test_sentences_are_short_and_shared_among_sets(tiny_model: Path) -> None:
    """Texts of 4 to 15 words, at most 40, from every set; what a small set lacks a larger one gives."""
    clips = [clip(i, words=i % 20 + 1, name="dev/x") for i in range(60)] + [clip(i, name="dev/y") for i in range(5)]
    material = Material(Clvp.load(tiny_model), clips, seed=1)
    chosen = sentences(material)
    assert len(chosen) == 40 and sum(c.set == "dev/y" for c in chosen) == 5
    assert all(4 <= len(c.text.split()) <= 15 for c in chosen)
    assert len(sentences(material, limit=3)) == 3
    with pytest.raises(InputError, match="4 to 15 words"):
        sentences(Material(material.clvp, [clip(0, words=40)], seed=1))


def test_voices_go_by_turns_through_speakers(tiny_model: Path) -> None:
    """Each speaker once before any comes again, with a clip of a fitting length where there is one."""
    clips = [clip(i, speaker=f"s{i % 3}", seconds=1.0 if i < 3 else 5.0) for i in range(12)]
    chosen = voices(Material(Clvp.load(tiny_model), clips, seed=1), 9)
    assert [c.speaker for c in chosen] == ["s0", "s1", "s2"] * 3
    assert len(set(chosen)) == 9 and all(c.seconds == 5.0 for c in chosen)


def test_records_hold_what_a_later_analysis_needs() -> None:
    """Each candidate with its codes, text, judgements and error rate."""
    records = list(pool(0, [0.5, 0.25], [2, 1]).records())
    assert [r["per"] for r in records] == [0.5, 0.25] and records[0]["signals"]["clvp"] == 2.0  # type: ignore[index]
    assert len(records[0]["codes"]) == 20 and records[0]["text"] == "word word word word word word"  # type: ignore[arg-type]
