"""Ranking: weighted sums of a candidate's own signals, stable ties, what is no number last."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clvp_cli.errors import UsageError
from clvp_cli.ranking import combine, parse_rank_by, rank
from clvp_cli.records import Candidate, Scored


def scored(index: int, clvp: float, **signals: float) -> Scored:
    """A candidate with these signals."""
    return Scored(Candidate(np.array([1, 2]), True, index), {"clvp": clvp, **signals})


def order(made: list[Scored], by: str = "clvp") -> list[int]:
    """Indices, best first."""
    return [entry.scored.candidate.index for entry in rank(made, parse_rank_by(by))]


def test_the_highest_score_is_first_and_ranks_count_from_1() -> None:
    """Best first, rank 1 on."""
    ranked = rank([scored(0, 1.0), scored(1, 3.0), scored(2, 2.0)])
    assert [(entry.rank, entry.scored.candidate.index, entry.score) for entry in ranked] == [
        (1, 1, 3.0), (2, 2, 2.0), (3, 0, 1.0),
    ]  # fmt: skip


def test_ties_keep_the_given_order() -> None:
    """Equal scores stay as they came."""
    assert order([scored(3, 1.0), scored(1, 1.0), scored(2, 1.0)]) == [3, 1, 2]


def test_what_is_not_a_number_ranks_last_and_is_null_in_the_record() -> None:
    """NaN never wins and never reaches JSON."""
    ranked = rank([scored(0, math.nan), scored(1, -5.0)])
    assert [entry.scored.candidate.index for entry in ranked] == [1, 0]
    assert ranked[1].record()["score"] is None and ranked[1].record()["signals"]["clvp"] is None


def test_a_sum_of_signals_orders_by_the_sum() -> None:
    """alignment+0.5*clvp adds what it names, and the record tells by what it was ranked."""
    made = [scored(0, 2.0, alignment=0.0), scored(1, 0.0, alignment=1.5), scored(2, -9.0, alignment=1.0)]
    assert order(made, "alignment + 0.5*clvp") == [1, 0, 2]
    best = rank(made, parse_rank_by("alignment+0.5*clvp"))[0]
    assert best.score == 1.5 and best.record()["ranked_by"] == ["alignment", "clvp"]
    assert "ranked_by" not in rank(made)[0].record()


def test_a_score_depends_on_its_candidate_alone() -> None:
    """Neighbours move no score."""
    alone = rank([scored(0, 1.25, alignment=3.0)], parse_rank_by("alignment+clvp"))[0].score
    among = rank([scored(1, 100.0, alignment=0.0), scored(0, 1.25, alignment=3.0)], parse_rank_by("alignment+clvp"))
    assert {entry.scored.candidate.index: entry.score for entry in among}[0] == alone == 4.25


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "clvp+",
        "2*",
        "-clvp",
        "clvp*2",
        "CLVP",
        "a b+",
        "1e3*clvp",
        "nan*clvp",
        "9" * 400 + "*clvp",
        "0*clvp",
        "２*clvp",
    ],
)
def test_what_is_no_sum_of_signals_is_refused(text: str) -> None:
    """A ranking is names joined by +, each with a plain weight before it or none."""
    with pytest.raises(UsageError):
        parse_rank_by(text)


def test_a_signal_that_was_not_computed_is_named() -> None:
    """The error says which signal, and which there are."""
    with pytest.raises(UsageError, match="beauty") as caught:
        combine(scored(0, 1.0), {"beauty": 1.0})
    assert "clvp" in str(caught.value.hint)


def test_nothing_ranks_to_nothing() -> None:
    """No candidates, no records."""
    assert rank([]) == []
