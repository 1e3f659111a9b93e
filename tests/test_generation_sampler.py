"""The sampler's steps against transformers' processors, and its draws against the distribution they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_files import tensors
from torch.testing import assert_close

from clvp_cli.generation.sampler import (
    choose,
    initial_history,
    invert_cdf,
    nucleus,
    penalise,
    shortlist,
    typical,
    uniforms,
)
from clvp_cli.settings import SamplingSettings


def spread_back(kept, codes, size):
    """Logits (N, size) with what was dropped at −inf."""
    return torch.full((len(kept), size), -torch.inf).scatter(-1, codes, kept)


def test_each_step_is_transformers():
    """Repetition penalty, top-k, top-p and all in order give the logits of transformers' processors."""
    want = tensors("hf_sampling")
    logits = want["logits"]
    said = torch.zeros_like(logits, dtype=torch.bool).scatter(1, want["history"], True)
    assert_close(penalise(logits, said, 2.0), want["repetition"])
    assert_close(spread_back(*shortlist(logits, 9), 40), want["top_k"])
    kept, codes = shortlist(logits, 0)
    assert_close(spread_back(nucleus(kept, 0.8), codes, 40), want["top_p"])
    kept, codes = shortlist(penalise(logits, said, 2.0) / 0.8, 9)
    assert_close(spread_back(nucleus(kept, 0.8), codes, 40), want["all"])


def test_typical_keeps_the_nearest_to_the_entropy():
    """Typical sampling keeps the smallest set, nearest to the entropy first, whose mass reaches the threshold."""
    p = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625]])
    log_p = p.log()
    entropy = -(p * log_p).sum()
    order = (-log_p[0] - entropy).abs().argsort()
    kept = typical(log_p.clone(), 0.5)[0].isfinite()
    taken, mass = set(), 0.0
    for place in order.tolist():
        if mass >= 0.5:
            break
        taken.add(place)
        mass += float(p[0, place])
    assert set(torch.nonzero(kept).flatten().tolist()) == taken


def test_draws_follow_the_distribution():
    """Uniform draws through the inverse CDF give each code its probability (n = 20,000, within 4 standard errors)."""
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, -torch.inf])
    draws = torch.from_numpy(uniforms(3, 0, 20_000))
    picks = invert_cdf(logits.expand(20_000, -1), draws)
    for code, p in enumerate(logits.softmax(-1).tolist()):
        share = float((picks == code).double().mean())
        assert abs(share - p) <= 4 * (p * (1 - p) / 20_000) ** 0.5


def test_extreme_draws_stay_possible():
    """A draw next to 1 never picks a code of probability zero."""
    logits = torch.tensor([[1.0, -torch.inf, 0.5, -torch.inf]])
    for draw in (0.0, 1 - 2**-53):
        assert int(invert_cdf(logits, torch.tensor([draw], dtype=torch.float64))) in (0, 2)


def test_uniforms_are_a_function_of_seed_and_index():
    """The series of (seed, index) repeats, is begun by its shorter self, and differs from every neighbour's."""
    assert np.array_equal(uniforms(7, 2, 50)[:10], uniforms(7, 2, 10))
    series = {tuple(uniforms(seed, index, 4)) for seed in range(20) for index in range(20)}
    assert len(series) == 400
    assert uniforms(2**63 - 1, 10**6, 1).shape == (1,)


@pytest.mark.parametrize(("history", "said"), [("codes", []), ("start", [8]), ("tortoise", [1, 8])])
def test_what_counts_as_said_before_the_first_code(history, said):
    """Each profile's history: nothing, the start code, or Tortoise's fake prompt ids."""
    made = initial_history(2, 10, 8, SamplingSettings(penalty_history=history))
    assert [torch.nonzero(row).flatten().tolist() for row in made] == [said, said]


def test_greedy_takes_the_most_probable():
    """Without draws the choice is the argmax after the penalty."""
    logits = torch.tensor([[3.0, 2.9, 0.0]])
    said = torch.tensor([[True, False, False]])
    assert int(choose(logits, said, None, SamplingSettings(repetition_penalty=1.0))) == 0
    assert int(choose(logits, said, None, SamplingSettings(repetition_penalty=2.0))) == 1
