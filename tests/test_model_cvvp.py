"""CVVP: Tortoise's own scores from Tortoise's own file, and rows that do not know of each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clvp_cli.checkpoints.load import open_checkpoint
from clvp_cli.checkpoints.modules import build_empty, load_module
from clvp_cli.model.cvvp import Cvvp, CvvpConfig

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def judge() -> Cvvp:
    """The reference's small model, read from its file."""
    extra = open_checkpoint(GOLDEN / "cvvp.pth").extras["cvvp"]
    module = build_empty(lambda: Cvvp(CvvpConfig.from_dict(dict(extra.config))))
    load_module(module, extra.state(), torch.float32)
    return module


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    """What the reference computed."""
    with np.load(GOLDEN / "tortoise.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def test_scores_are_the_references(judge: Cvvp, golden: dict[str, torch.Tensor]) -> None:
    """Scores of four candidates against two clips are Tortoise's to 1e-5, the rounding of two orders of summation."""
    codes = golden["fixed"].long()
    for clip, want in enumerate(golden["cvvp.clip_scores"]):
        torch.testing.assert_close(judge(golden["mels"][:, clip], codes), want, atol=1e-5, rtol=1e-5)


def test_row_alone_scores_as_in_a_batch(judge: Cvvp, golden: dict[str, torch.Tensor]) -> None:
    """A candidate's vector does not depend on its neighbours."""
    codes = golden["fixed"].long()
    alone = torch.cat([judge.embed_speech(row[None]) for row in codes])
    torch.testing.assert_close(alone, judge.embed_speech(codes), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(alone.norm(dim=-1), torch.ones(len(codes)))


def test_real_sizes_are_the_default() -> None:
    """The default configuration has the 37.8 M parameters of Tortoise's file."""
    module = build_empty(lambda: Cvvp(CvvpConfig()))
    assert round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 1) == 37.8
