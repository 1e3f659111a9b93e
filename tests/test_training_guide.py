"""Showing a decoder where in its text each code is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clvp_cli.training.guide import attention_loss, diagonal, forced_alignment, windows
from clvp_cli.training.train import train
from tests.training_runs import write_config, write_corpus

BLANK = 3


def spoken(states: list[int], sure: float = 0.9) -> np.ndarray:
    """Log-probabilities (T, 4) that favour one class at each code."""
    rows = np.full((len(states), 4), (1 - sure) / 3)
    rows[np.arange(len(states)), states] = sure
    return np.log(rows).astype(np.float32)


def test_an_alignment_lies_where_the_log_probabilities_put_the_targets() -> None:
    """Targets sit at their codes, blanks halfway between their neighbours, also at the ends."""
    found = forced_alignment(spoken([BLANK, 0, 0, BLANK, 1, 2, BLANK]), [0, 1, 2], BLANK)
    assert found is not None
    np.testing.assert_allclose(found, [-0.5, 0, 0, 0.5, 1, 2, 2.5])


def test_two_equal_targets_have_a_blank_between_them() -> None:
    """As the classification's rule asks, also where the blank is improbable."""
    found = forced_alignment(spoken([1, 1, 1, 1]), [1, 1], BLANK)
    assert found is not None
    assert {0.0, 0.5, 1.0} <= set(found.tolist())
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize(("codes", "targets"), [([0, 1], [0, 1, 2]), ([0, 1], []), ([1, 1], [1, 1])])
def test_what_cannot_be_laid_along_the_codes_has_no_alignment(codes: list[int], targets: list[int]) -> None:
    """More targets than codes, none at all, or no room for the blank between two that are the same."""
    assert forced_alignment(spoken(codes), targets, BLANK) is None


def test_the_alignment_is_the_most_probable_of_all() -> None:
    """Its probability is the largest among every path that spells the targets."""
    rng = np.random.default_rng(5)
    log_probs = torch.from_numpy(rng.normal(size=(5, 4)).astype(np.float32)).log_softmax(-1).numpy()

    def spelt(path: list[int]) -> list[int]:
        return [c for i, c in enumerate(path) if c != BLANK and (i == 0 or path[i - 1] != c)]

    paths = [[int(d) for d in np.base_repr(n, 4).zfill(5)] for n in range(4**5)]
    best = max((p for p in paths if spelt(p) == [0, 2]), key=lambda p: log_probs[np.arange(5), p].sum())
    found = forced_alignment(log_probs, [0, 2], BLANK)
    assert found is not None
    for place, state in zip(found, best, strict=True):
        assert state == BLANK or place == [0, 2].index(state)


def test_attention_at_the_right_place_costs_nothing_and_elsewhere_much() -> None:
    """The loss is near 0 for heads that look where the code is, and larger the farther they look."""
    near = windows([diagonal(4, 4)], [0.5], keys=6, first=1)
    known = near.amax(-1) > 0
    right = torch.zeros(1, 1, 4, 6)
    right[0, 0, torch.arange(4), torch.arange(4) + 1] = 1.0  # the ids' centres lie between two keys
    wrong = right.flip(-1)
    assert float(attention_loss(right, near, known)) < 1.0 < 3.0 < float(attention_loss(wrong, near, known))


def test_a_guided_decoder_learns_where_to_look(tmp_path: Path) -> None:
    """The guide's loss falls while the decoder learns, and a run without it says nothing of one."""
    manifest = write_corpus(tmp_path / "data", audio=True)
    model = tmp_path / "codec" / "model"
    train("codec", write_config(tmp_path / "codec.yaml", manifest, loop={"steps": 2}), tmp_path / "codec")
    rows: list[dict[str, float]] = []
    guided = {"guide": 1.0, "guide_steps": 1000, "guide_first": 0, "guide_layers": 1, "guide_heads": 1}
    config = write_config(
        tmp_path / "decoder.yaml",
        manifest,
        loop={"steps": 30, "log_every": 1},
        optim={"learning_rate": 1e-2, "warmup": 1},
        decoder=guided,
    )
    train("decoder", config, tmp_path / "decoder", model=model, report=lambda row: rows.append(dict(row)))
    losses = [row["guide"] for row in rows if "guide" in row]
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
