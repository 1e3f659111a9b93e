"""Random models: reproducible, sized as asked, and drawn as the published classes draw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_makers import small_config

from clvp_cli.checkpoints.load import open_checkpoint
from clvp_cli.checkpoints.random import random_directory, tiny_config
from clvp_cli.errors import OutputError, UsageError
from clvp_cli.model.clvp import ClvpNetwork


def test_seed_decides_the_weights(tmp_path: Path) -> None:
    """The same seed gives the same weights, in shards or not; another seed others."""
    random_directory(tmp_path / "a", small_config(), 3)
    random_directory(tmp_path / "b", small_config(), 3, max_shard_bytes=40_000)
    random_directory(tmp_path / "c", small_config(), 4)
    a, b, c = (open_checkpoint(tmp_path / name).state() for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["speech_decoder_model.lm_head.weight"], c["speech_decoder_model.lm_head.weight"])


def test_spread_is_the_published_initialisation(tmp_path: Path) -> None:
    """Each weight has the spread that the model's own initialisation gives it; norms are one, biases zero."""
    random_directory(tmp_path / "m")
    drawn = open_checkpoint(tmp_path / "m").state()
    torch.manual_seed(0)
    reference = ClvpNetwork(tiny_config()).state_dict()
    for name, tensor in reference.items():
        if tensor.unique().numel() == 1:
            assert torch.equal(drawn[name], tensor), name
        else:
            bound = 6 / (2 * tensor.numel()) ** 0.5  # six standard errors of a standard deviation, both sides
            assert abs(drawn[name].std() / tensor.std() - 1) < 2 * bound, name


def test_unknown_size_and_taken_place_are_errors(tmp_path: Path) -> None:
    """A name that is no size, and a directory that is there, are told."""
    with pytest.raises(UsageError, match="no configuration is named 'huge'"):
        random_directory(tmp_path / "m", "huge")
    random_directory(tmp_path / "m")
    with pytest.raises(OutputError, match="exists already"):
        random_directory(tmp_path / "m")
