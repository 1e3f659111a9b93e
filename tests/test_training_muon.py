"""Muon: orthogonal directions, and steps of AdamW's size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clvp_cli.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_every_direction_gets_about_the_same(shape: tuple[int, int]) -> None:
    """Singular values of a matrix that had some a hundred times as large as others lie about 1; its vectors stay."""
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(*shape), full_matrices=False)
    found = orthogonal(u @ torch.diag(torch.logspace(0, -2, len(v))) @ v)
    sizes = torch.diagonal(u.t() @ found @ v.t())
    assert found.shape == shape
    assert float(sizes.min()) > 0.3 and float(sizes.max()) < 1.3
    torch.testing.assert_close(u @ torch.diag(sizes) @ v, found, atol=1e-4, rtol=0)


def test_it_agrees_with_torchs_own() -> None:
    """Where torch has one: the same steps but for its bfloat16."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch.optim.Muon came with torch 2.9")
    torch.manual_seed(1)
    ours, theirs = (nn.Parameter(torch.ones(12, 30)) for _ in range(2))
    mine = Muon([ours], lr=0.01, weight_decay=0.1)
    its = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        ours.grad = torch.randn(12, 30)
        theirs.grad = ours.grad.clone()
        mine.step()
        its.step()
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)
