"""Every block against transformers 4.46.3, through its golden files. float32 sums in another order: 1e-5 is theirs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from golden_files import hf_directory, network, tensors
from torch.testing import assert_close

from clvp_cli.config import ClvpConfig, ClvpDecoderConfig, ClvpEncoderConfig
from clvp_cli.errors import ConfigError, InputError
from clvp_cli.model.clvp import ClvpNetwork, contrastive_loss, fix_speech_codes, unit
from clvp_cli.model.conditioning import group_norm_groups, insert_stop, join_prefix
from clvp_cli.model.layers import ClvpRMSNorm, MaskedAttend, Trace

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module", params=["hf_partial", "hf_biased"])
def golden(request, tmp_path_factory):
    """(network, golden tensors) of one tiny published model."""
    directory = hf_directory(request.param, tmp_path_factory.mktemp(request.param))
    return network(directory), tensors(request.param)


@torch.no_grad()
def test_conditioning_prefix_is_the_published_one(golden):
    """Prefixes of pairs, of a masked pair and of one text with two voices equal the published encoder's."""
    net, want = golden
    encoder = net.conditioning_encoder
    assert_close(encoder(want["features"], want["ids"]), want["conditioning.prefix"], **CLOSE)
    masked = encoder(want["features"], want["ids"], attention_mask=want["mask"])
    assert_close(masked, want["conditioning.prefix_masked"], **CLOSE)
    assert_close(encoder(want["features"], want["ids"][:1]), want["conditioning.prefix_one_text"], **CLOSE)


@torch.no_grad()
def test_decoder_over_a_prefix_is_the_uncached_published_pass(golden):
    """Teacher-forced logits and latents at the trained positions equal the published uncached ones."""
    net, want = golden
    decoder = net.speech_decoder_model
    codes = torch.cat((torch.tensor([[decoder.config.bos_token_id]]), want["codes"][:1]), dim=1)
    hidden = decoder.teacher_forced(want["conditioning.prefix"][:1], codes)
    assert_close(decoder.final_norm(hidden), want["decoder.prefix_latents"], **CLOSE)
    assert_close(decoder.logits(hidden), want["decoder.prefix_logits"], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("part", ["text", "speech"])
@pytest.mark.parametrize("summary", ["mean", "last", "first", "cls_index"])
def test_encoder_layers_and_summaries_are_the_published_ones(golden, part, summary):
    """Every layer, the pooled and the projected vector equal the published encoder's, for each summary type."""
    net, want = golden
    encoder = net.text_encoder_model if part == "text" else net.speech_encoder_model
    encoder.config = dataclasses.replace(encoder.config, summary_type=summary)
    ids = want["ids"] if part == "text" else want["codes"]
    trace = Trace.wanted(hidden_states=True, attentions=True)
    hidden = encoder.hidden(encoder.token_embedding(ids), trace=trace)
    assert_close(torch.stack(trace.hidden_states), want[f"{part}.hidden"], **CLOSE)
    assert_close(hidden, want[f"{part}.last_hidden_state"], **CLOSE)
    assert_close(encoder.summarise(hidden), want[f"{part}.pooled_{summary}"], **CLOSE)
    assert_close(encoder.embed(ids), want[f"{part}.embeds_{summary}"], **CLOSE)
    assert all(torch.allclose(weights.sum(-1), torch.ones(())) for weights in trace.attentions)


@torch.no_grad()
@pytest.mark.parametrize("summary", ["mean", "last", "first", "cls_index"])
def test_a_padded_text_has_the_vector_it_has_alone(golden, summary):
    """Under a mask pads do not count, for every summary type: the published mean over pads is not repeated."""
    net, want = golden
    encoder = net.text_encoder_model
    encoder.config = dataclasses.replace(encoder.config, summary_type=summary)
    together = encoder.embed(want["ids"], want["mask"])
    kept = int(want["mask"][1].sum())
    assert_close(together[1:], encoder.embed(want["ids"][1:, :kept]), **CLOSE)


@torch.no_grad()
def test_fixed_codes_are_the_published_ones(golden):
    """fix_speech_codes equals the published fixing, and rows shorter than three do not crash."""
    net, want = golden
    if "fixing.given" not in want:
        pytest.skip("the fixing cases are in the other golden file")
    config = net.config.decoder_config
    fixed = fix_speech_codes(want["fixing.given"][:, 1:], config.eos_token_id, config.decoder_fixing_codes)
    assert torch.equal(fixed, want["fixing.fixed"])
    stop = config.eos_token_id
    assert fix_speech_codes(torch.tensor([[3, stop]]), stop, [83, 45, 46, 248]).tolist() == [[46, 248]]
    assert fix_speech_codes(torch.tensor([[3]]), stop, [83, 45, 46, 248]).tolist() == [[3]]


@torch.no_grad()
def test_similarity_and_its_loss_are_the_published_ones(golden):
    """Unit vectors, logits and the contrastive loss of the whole forward pass follow from the parts."""
    net, want = golden
    logits = unit(want["forward.text_embeds"]) @ unit(want["forward.speech_embeds"]).t() * net.logit_scale.exp()
    assert_close(logits, want["forward.logits_per_text"], **CLOSE)
    assert_close(contrastive_loss(logits), want["forward.loss"], **CLOSE)


def test_full_size_has_the_published_parameters():
    """The full configuration has 665,110,531 parameters, split as published; made on the meta device, at no cost."""
    with torch.device("meta"):
        net = ClvpNetwork(ClvpConfig(speech_config=ClvpEncoderConfig(vocab_size=8192)))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    assert list(count.values()) == [25_961_472, 395_302_914, 118_875_648, 124_970_496]
    assert sum(p.numel() for p in net.parameters()) == 665_110_531
    assert len(net.state_dict()) == 1001  # and two derived tables in the published files


def test_attention_with_weights_kept_equals_the_fused_one():
    """Asking for attention weights, or for a causal mask by hand, changes no output."""
    q, k, v = torch.randn(3, 2, 4, 7, 8).unbind(0)
    for causal in (False, True):
        kept = MaskedAttend(causal=causal, trace=Trace.wanted(hidden_states=False, attentions=True))
        assert_close(kept(q, k, v), MaskedAttend(causal=causal)(q, k, v), **CLOSE)


def test_clamped_norm_is_tortoises():
    """The clamped RMSNorm is x / max(rms, 1e-8), so that tiny inputs are scaled up in full."""
    x = torch.randn(2, 5) * 1e-6
    norm = ClvpRMSNorm(5, eps=1e-5, kind="clamp")
    assert_close(norm(x), x / x.pow(2).mean(-1, keepdim=True).sqrt(), **CLOSE)
    assert ClvpRMSNorm(5, eps=1e-5)(x).abs().max() < 0.01


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (64, 16), (1024, 32), (96, 32), (24, 8), (40, 8)])
def test_group_norm_groups_follow_the_width(channels, groups):
    """Groups are 8, 16 or 32 by width, halved until they divide it."""
    assert group_norm_groups(channels) == groups


def test_a_width_without_groups_is_an_error():
    """Two groups or fewer are refused, as published."""
    with pytest.raises(ConfigError):
        group_norm_groups(66)


def test_the_stop_goes_before_the_first_pad():
    """The stop is inserted at the first pad of each row, or at its end."""
    ids = torch.tensor([[5, 6, 7], [5, 0, 0], [0, 0, 0]])
    assert insert_stop(ids, 9).tolist() == [[5, 6, 7, 9], [5, 9, 0, 0], [9, 0, 0, 0]]


@torch.no_grad()
def test_embeddings_in_place_of_ids_make_the_same_prefix(golden):
    """inputs_embeds, which the published encoder crashes on, make the prefix that the ids make."""
    net, want = golden
    encoder = net.conditioning_encoder
    embeds = encoder.text_token_embedding(want["ids"])
    assert_close(encoder(want["features"], inputs_embeds=embeds), encoder(want["features"], want["ids"]), **CLOSE)


def test_texts_and_voices_that_do_not_match_are_an_error():
    """Two texts and three voices make no prefix; one of either is repeated."""
    assert join_prefix(torch.zeros(3, 4), torch.zeros(1, 5, 4)).shape == (3, 6, 4)
    with pytest.raises(InputError, match="2 texts and 3 voices"):
        join_prefix(torch.zeros(3, 4), torch.zeros(2, 5, 4))


def test_dropout_acts_in_training_only():
    """In training two passes differ; in inference they do not."""
    config = ClvpDecoderConfig(
        vocab_size=20, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, bos_token_id=18, eos_token_id=19
    )
    net = ClvpNetwork(ClvpConfig(text_config=TINY, speech_config=TINY, decoder_config=config))
    codes = torch.randint(0, 18, (2, 6))
    assert torch.equal(net.eval().speech_encoder_model.embed(codes), net.speech_encoder_model.embed(codes))
    assert not torch.equal(net.train().speech_encoder_model.embed(codes), net.speech_encoder_model.embed(codes))


TINY = ClvpEncoderConfig(
    hidden_size=32, num_attention_heads=1, num_hidden_layers=1, intermediate_size=16, projection_dim=8
)
