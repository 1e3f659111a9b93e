"""The published classes against transformers' own, block by block, over files that either side wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import clvp_cli

from .live import assert_close, batch, draws, exchange, random_codes, random_model


@draws(4)
@torch.no_grad()
def test_conditioning_encoder(seed: int, tmp_path: Path) -> None:
    """Prefixes agree for pairs, for one text with many voices, and for many texts with one voice."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    given = batch(theirs, seed, rows=3)
    for texts, voices in ((slice(None), slice(None)), (slice(1), slice(None)), (slice(None), slice(1))):
        ids, features = given["input_ids"][texts], given["input_features"][voices]
        reference = theirs.conditioning_encoder(input_features=features, input_ids=ids)
        assert_close(ours.conditioning_encoder(input_features=features, input_ids=ids), reference)


@draws(3)
@torch.no_grad()
def test_conditioning_encoder_masks(seed: int, tmp_path: Path) -> None:
    """A padded row's real positions have the prefix that transformers gives that row alone."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    given = batch(theirs, seed)
    ids, mask = given["input_ids"], torch.ones_like(given["input_ids"])
    ids[1, 4:], mask[1, 4:] = 0, 0
    prefix = ours.conditioning_encoder(input_features=given["input_features"], input_ids=ids, attention_mask=mask)
    for row, length in ((0, 7), (1, 4)):
        alone = theirs.conditioning_encoder(
            input_features=given["input_features"][row : row + 1], input_ids=ids[row : row + 1, :length]
        )
        assert_close(prefix[row, : length + 3], alone[0])


@draws(4)
@torch.no_grad()
def test_decoder(seed: int, tmp_path: Path) -> None:
    """Logits, loss, hidden states, attentions and the cache of the decoder agree, and so do cached continuations."""
    theirs, codes = random_model(seed), None
    ours = exchange(theirs, tmp_path)
    codes = random_codes(theirs, seed)
    settings = {"output_hidden_states": True, "output_attentions": True, "return_dict": True}
    reference = theirs.speech_decoder_model(input_ids=codes, labels=codes, **settings)
    found = ours.speech_decoder_model(input_ids=codes, labels=codes, **settings)
    assert_close(found.logits, reference.logits)
    assert_close(found.loss, reference.loss)
    for name in ("hidden_states", "attentions"):
        for one, other in zip(getattr(found, name), getattr(reference, name), strict=True):
            assert_close(one, other)
    for one, other in zip(found.past_key_values, reference.past_key_values, strict=True):
        assert_close(one[0], other[0])
        assert_close(one[1], other[1])
    last = codes[:, :1]
    more = theirs.speech_decoder_model(input_ids=last, past_key_values=reference.past_key_values).logits
    assert_close(ours.speech_decoder_model(input_ids=last, past_key_values=found.past_key_values).logits, more)


@draws(3)
@torch.no_grad()
def test_decoder_arguments(seed: int, tmp_path: Path) -> None:
    """Masks, token types, explicit positions and labels left out act as they do in transformers."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    codes = random_codes(theirs, seed)
    mask = torch.ones_like(codes)
    mask[0, 6:] = 0
    labels = codes.masked_fill(mask == 0, -100)
    heads = theirs.config.decoder_config.num_attention_heads
    for extra in (
        {"attention_mask": mask, "labels": labels},
        {"token_type_ids": codes.flip(1)},
        {"position_ids": torch.arange(9).flip(0).unsqueeze(0)},
        {"head_mask": torch.linspace(0, 1, heads)},
    ):
        reference = theirs.speech_decoder_model(input_ids=codes, **extra)
        found = ours.speech_decoder_model(input_ids=codes, **extra)
        kept = mask.bool() if "attention_mask" in extra else torch.ones_like(mask).bool()
        assert_close(found.logits[kept], reference.logits[kept])
        if "labels" in extra:
            assert_close(found.loss, reference.loss)


@draws(5)
@pytest.mark.parametrize("part", ["text", "speech"])
@torch.no_grad()
def test_encoders(seed: int, part: str, tmp_path: Path) -> None:
    """Both encoders agree in every layer, attention, summary and embedding, from ids and from embeddings."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    encoder, reference = (getattr(model, f"{part}_encoder_model") for model in (ours, theirs))
    vocab = reference.config.vocab_size
    ids = torch.randint(1, vocab, (2, 13), generator=torch.Generator().manual_seed(seed))
    settings = {"output_hidden_states": True, "output_attentions": True, "return_dict": True}
    for given in ({"input_ids": ids}, {"inputs_embeds": reference.token_embedding(ids)}):
        expected, found = reference(**given, **settings), encoder(**given, **settings)
        for name in ("embeds", "last_hidden_state", "pooler_output"):
            assert_close(getattr(found, name), getattr(expected, name))
        for name in ("hidden_states", "attentions"):
            for one, other in zip(getattr(found, name), getattr(expected, name), strict=True):
                assert_close(one, other)


@draws(3)
@torch.no_grad()
def test_encoder_masks(seed: int, tmp_path: Path) -> None:
    """A masked row has the embedding that transformers gives it alone, and its hidden states those of transformers."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    ids = batch(theirs, seed)["input_ids"]
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    found = ours.text_encoder_model(input_ids=ids, attention_mask=mask, return_dict=True)
    masked = theirs.text_encoder_model(input_ids=ids, attention_mask=mask, return_dict=True)
    assert_close(found.last_hidden_state[mask.bool()], masked.last_hidden_state[mask.bool()])
    assert_close(found.embeds[1:], theirs.text_encoder_model(input_ids=ids[1:, :5], return_dict=True).embeds)
    assert_close(ours.get_text_features(input_ids=ids), theirs.get_text_features(input_ids=ids))


@draws(4)
@torch.no_grad()
def test_forward(seed: int, tmp_path: Path) -> None:
    """The whole forward pass agrees: loss, similarities, embeddings, hidden states, as a dictionary and as a tuple."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    given = batch(theirs, seed) | {"return_loss": True, "output_hidden_states": True}
    reference, found = theirs(**given, return_dict=True), ours(**given, return_dict=True)
    for name in ("loss", "logits_per_speech", "logits_per_text", "text_embeds", "speech_embeds"):
        assert_close(getattr(found, name), getattr(reference, name), rtol=1e-3, atol=1e-3)
    for name in ("decoder_hidden_states", "text_encoder_hidden_states", "speech_encoder_hidden_states"):
        for one, other in zip(getattr(found, name), getattr(reference, name), strict=True):
            assert_close(one, other)
    plain = batch(theirs, seed)
    for one, other in zip(ours(**plain, return_dict=False)[:4], theirs(**plain, return_dict=False)[:4], strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-3)


@draws(3)
@torch.no_grad()
def test_fixing(seed: int, tmp_path: Path) -> None:
    """fix_speech_decoder_output rewrites random rows as transformers does, and get_speech_features reads them."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    codes = random_codes(theirs, seed, rows=12, length=10)
    stop = theirs.config.decoder_config.eos_token_id
    for row, place in enumerate([1, 2, 4, 6, 7, 8, 9]):
        codes[row, place] = stop
    codes[6, 3] = stop
    expected = theirs.fix_speech_decoder_output(codes)
    assert torch.equal(ours.fix_speech_decoder_output(codes), expected)
    assert_close(ours.get_speech_features(speech_ids=expected), theirs.get_speech_features(speech_ids=expected))


@draws(2)
@pytest.mark.parametrize(
    "options", [{}, {"safe_serialization": False}, {"max_shard_size": "40KB"}], ids=["safetensors", "bin", "shards"]
)
def test_their_files_load(seed: int, options: dict[str, Any], tmp_path: Path) -> None:
    """Each form in which transformers saves a model loads to the same state, key for key."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path, **options).state_dict()
    expected = theirs.state_dict()
    missing = {name for name in expected.keys() ^ ours.keys() if "inv_freq" not in name}
    assert not missing
    for name in expected.keys() & ours.keys():
        assert torch.equal(ours[name], expected[name]), name


@draws(2)
@pytest.mark.parametrize("options", [{}, {"safe_serialization": False}], ids=["safetensors", "bin"])
@torch.no_grad()
def test_our_files_load_there(seed: int, options: dict[str, Any], tmp_path: Path) -> None:
    """transformers loads what we save, without a missing or unexpected key, and computes the same."""
    from transformers import ClvpModelForConditionalGeneration

    theirs = random_model(seed)
    exchange(theirs, tmp_path / "theirs").save_pretrained(tmp_path / "ours", **options)
    back, report = ClvpModelForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not [name for names in report.values() for name in names if "inv_freq" not in str(name)]
    given = batch(theirs, seed)
    assert_close(back.eval()(**given).logits_per_text, theirs(**given).logits_per_text)
    for part in ("text_config", "speech_config", "decoder_config"):
        saved, sent = getattr(back.config, part).to_dict(), getattr(theirs.config, part).to_dict()
        assert {name: saved.get(name) for name in sent} == sent


@draws(2)
@torch.no_grad()
def test_parts_load_alone(seed: int, tmp_path: Path) -> None:
    """A decoder or an encoder that transformers saved by itself loads into the class of that name."""
    theirs = random_model(seed)
    codes = random_codes(theirs, seed)
    theirs.speech_decoder_model.save_pretrained(tmp_path / "decoder")
    causal = clvp_cli.ClvpForCausalLM.from_pretrained(tmp_path / "decoder")
    assert_close(causal(input_ids=codes).logits, theirs.speech_decoder_model(input_ids=codes).logits)
    theirs.speech_encoder_model.save_pretrained(tmp_path / "speech")
    encoder = clvp_cli.ClvpEncoder.from_pretrained(tmp_path / "speech")
    assert_close(encoder(input_ids=codes)[0], theirs.speech_encoder_model(input_ids=codes)[0])


@draws(2)
def test_gradients(seed: int, tmp_path: Path) -> None:
    """The contrastive and the decoder's loss have the same gradient in every weight."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path).eval()
    codes = random_codes(theirs, seed)
    given = batch(theirs, seed) | {"return_loss": True}
    for model in (theirs, ours):
        model.requires_grad_(True)
        model.zero_grad()
        (model(**given).loss + model.speech_decoder_model(input_ids=codes, labels=codes).loss).backward()
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    found = dict(ours.named_parameters())
    for name, gradient in expected.items():
        grown = found[name].grad
        assert grown is not None, name
        # a key's bias moves no softmax: its gradient is 0 but for rounding, which the second term allows
        assert_close(grown, gradient, rtol=1e-2, atol=2e-3 * float(gradient.abs().max()) + 1e-6 * largest)
