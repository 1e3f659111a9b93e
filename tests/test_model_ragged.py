"""Sequences of many lengths in one pass: each is what the encoder makes of it alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from clvp_cli import native
from clvp_cli.config import ClvpEncoderConfig
from clvp_cli.model.encoder import Encoder
from clvp_cli.model.initialise import initialise
from clvp_cli.model.packed_encoder import native_encoder, pack_encoder
from clvp_cli.model.ragged import ragged_hidden
from clvp_cli.signals import speech

CONFIG = ClvpEncoderConfig(
    vocab_size=100, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=2,
    projection_dim=128,
)  # fmt: skip


@pytest.mark.parametrize("rotary", [True, False])
@pytest.mark.parametrize("act", ["gelu", "silu"])
@pytest.mark.parametrize("norm", ["rsqrt", "clamp"])
@pytest.mark.parametrize("kind", ["", "packed", "half", "int8"])
def test_each_sequence_is_heard_alone(rotary, act, norm, kind):
    """Hidden states of groups of many lengths are those of each group by itself, within float32's rounding.

    So they are where weights are rounded: whole numbers that rows are rounded to may be others then, by one. Where our
    kernels round keys and queries, too, they are the same bits, and what all that costs is a part of them.
    """
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, use_rotary_embedding=rotary, hidden_act=act, rms_norm=norm)
    encoder = Encoder(config).requires_grad_(False).eval()
    initialise(encoder, config)
    groups = [torch.randint(0, 100, shape) for shape in ((2, 5), (1, 9), (3, 1), (1, 40))]
    want = [encoder.hidden(encoder.token_embedding(group)) for group in groups]
    if kind and not torch.backends.mkldnn.is_available():
        pytest.skip("what is packed is oneDNN's")
    if kind:
        pack_encoder(encoder, kind)
        assert (native_encoder(encoder) is not None) == (kind in ("half", "int8") and act == "gelu" and native.takes())
    if kind == "int8" and native.takes():
        for one, exact, group in zip(ragged_hidden(encoder, groups), want, groups, strict=True):
            assert (one - exact).std() <= 0.05 * exact.std()
            assert torch.equal(one, ragged_hidden(encoder, [group])[0])
        return
    if kind in ("half", "int8"):
        want = [encoder.hidden(encoder.token_embedding(group)) for group in groups]
    made = ragged_hidden(encoder, groups)
    near = 5e-2 if kind == "int8" else 2e-5
    for one, other, group in zip(made, want, groups, strict=True):
        assert one.shape == (*group.shape, 128)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=near)


def test_an_encoder_without_layers_is_its_final_norm():
    """Packed too, when there is nothing to pack."""
    encoder = Encoder(dataclasses.replace(CONFIG, num_hidden_layers=0)).requires_grad_(False)
    ids = torch.randint(0, 100, (2, 5))
    want = encoder.final_layer_norm(encoder.token_embedding(ids))
    assert torch.equal(ragged_hidden(encoder, [ids])[0], want)
    assert torch.equal(ragged_hidden(pack_encoder(encoder, "int8"), [ids])[0], want)


def test_passes_hold_every_bucket_once_and_stay_small():
    """Buckets are put together up to the budget of codes and of rows, in order, none lost."""
    rows = [np.zeros(length, dtype=np.int64) for length in np.random.default_rng(0).integers(1, 500, 200)]
    lengths = [len(row) for row in rows]
    for batch_size in (0, 3):
        found = list(speech.passes(speech.buckets(lengths, batch_size), rows, batch_size))
        assert sorted(m for groups in found for members in groups for m in members) == list(range(200))
        for groups in found:
            assert len(groups) == 1 or sum(len(g) * lengths[g[0]] for g in groups) <= speech.TOKENS_A_PASS
            assert not batch_size or sum(map(len, groups)) <= batch_size
