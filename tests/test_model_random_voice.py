"""The random-voice generator: Tortoise's own vectors from Tortoise's own file, and seeds that always mean one voice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from clvp_cli.checkpoints.load import open_checkpoint
from clvp_cli.checkpoints.modules import build_empty, load_module
from clvp_cli.model.random_voice import RandomVoice, RandomVoiceConfig

GOLDEN = Path(__file__).parent / "golden"


def reference() -> RandomVoice:
    extra = open_checkpoint(GOLDEN / "rlg_auto.pth").extras["random_voice"]
    module = build_empty(lambda: RandomVoice(RandomVoiceConfig.from_dict(dict(extra.config))))
    load_module(module, extra.state(), torch.float32)
    return module


def test_vectors_are_the_references() -> None:
    """Noise becomes the vectors that Tortoise makes of it."""
    with np.load(GOLDEN / "tortoise.npz") as arrays:
        noise, want = torch.from_numpy(arrays["rlg.noise"]), torch.from_numpy(arrays["rlg.vectors"])
    torch.testing.assert_close(reference()(noise), want, atol=1e-5, rtol=1e-5)


def test_seed_is_a_voice() -> None:
    """A seed gives one voice, whatever was drawn before; another seed another."""
    voice = reference()
    first = voice.sample(7)
    torch.manual_seed(1)
    assert torch.equal(voice.sample(7), first)
    assert first.shape == (1, 24)
    assert not torch.allclose(voice.sample(8), first)


def test_real_size_is_the_default() -> None:
    """The default has the 6.3 M parameters of Tortoise's file."""
    module = build_empty(lambda: RandomVoice(RandomVoiceConfig()))
    assert round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 1) == 6.3
