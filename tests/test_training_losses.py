"""What training makes small: likelihoods of whole texts, and how far damaged clips lie below intact ones."""

from __future__ import annotations

import pytest
import torch

from clvp_cli.training.losses import MARGIN, a_token, alignment, apart, costs

BLANK = 3


@pytest.fixture
def log_probs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 6, 4, generator=generator, requires_grad=True)


def test_costs_are_of_whole_texts_and_infinite_where_none_fits(log_probs: torch.Tensor) -> None:
    """Three tokens cost what CTC says; two that are the same need three codes; an empty text has no finite cost."""
    texts = [[0, 1, 2], [1, 1], []]
    normed, lengths = log_probs.log_softmax(-1), torch.tensor([6, 2, 6])
    found = costs(normed, lengths, texts, BLANK)
    ctc = torch.nn.functional.ctc_loss(
        normed[:1].transpose(0, 1), torch.tensor([0, 1, 2]), lengths[:1], torch.tensor([3]), BLANK, "sum"
    )
    assert found[0].detach() == pytest.approx(float(ctc.detach()))
    assert found[1:].isinf().all()
    mean = a_token(found, texts)
    assert float(mean.detach()) == pytest.approx(float(found[0].detach()) / 3)
    assert torch.equal(mean, alignment(normed, lengths, texts, BLANK))
    mean.backward()
    assert log_probs.grad is not None and log_probs.grad.isfinite().all() and log_probs.grad[0].abs().sum() > 0


def test_what_is_far_apart_costs_nothing(log_probs: torch.Tensor) -> None:
    """A damaged copy that is dearer by far, or that cannot hold the text, is well; one that is cheaper is not."""
    right, wrong = torch.tensor([5.0, 5.0, torch.inf]), torch.tensor([5.0 + 20 * MARGIN, torch.inf, 1.0])
    assert float(apart(right, wrong)) == pytest.approx(0.0, abs=1e-6)
    near = torch.tensor([4.0, 5.0 + MARGIN], requires_grad=True)
    loss = apart(right[:2], near)
    loss.backward()
    assert near.grad is not None and (near.grad < 0).all() and near.grad[0] < near.grad[1]
    nothing = costs(log_probs.log_softmax(-1), torch.tensor([1, 1, 1]), [[0, 1]] * 3, BLANK)
    (a_token(nothing, [[0, 1]] * 3) + apart(nothing, nothing)).backward()
    assert log_probs.grad is not None and float(log_probs.grad.abs().sum()) == 0.0
