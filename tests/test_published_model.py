"""ClvpModelForConditionalGeneration against values of transformers 4.46.3, and where it is meant to differ."""

from __future__ import annotations

import logging
from pathlib import Path

import golden_files
import pytest
import torch
from published_models import START, STOP, batch, golden_model, small_model
from torch import Tensor

from clvp_cli import ClvpOutput, GenerationConfig
from clvp_cli.errors import CandidateError, ConfigError, InputError, TextError

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
AS_PUBLISHED = {"code_positions": "skip", "suppress_start": False, "pad": "batch", "return_dict_in_generate": True}


@pytest.mark.parametrize("name", ["hf_partial", "hf_biased"])
def test_golden_conditioning(name: str, tmp_path: Path) -> None:
    """Prefixes are the published ones: pairs, a padded text, one text with two voices."""
    golden = golden_files.tensors(name)
    encoder = golden_model(name, tmp_path).conditioning_encoder
    features, ids = golden["features"], golden["ids"]
    torch.testing.assert_close(encoder(features, ids), golden["conditioning.prefix"], **CLOSE)
    masked = encoder(input_features=features, input_ids=ids, attention_mask=golden["mask"])
    torch.testing.assert_close(masked, golden["conditioning.prefix_masked"], **CLOSE)
    torch.testing.assert_close(encoder(features, ids[:1]), golden["conditioning.prefix_one_text"], **CLOSE)
    with pytest.raises(ValueError, match="2 texts and 3 voices"):
        encoder(features[[0, 1, 0]], ids)
    assert encoder.compute_groupnorm_groups(1024) == 32


@pytest.mark.parametrize("name", ["hf_partial", "hf_biased"])
def test_golden_forward(name: str, tmp_path: Path) -> None:
    """Embeddings and similarity of a text without padding are the published ones."""
    golden = golden_files.tensors(name)
    out = golden_model(name, tmp_path)(golden["ids"], golden["features"], attention_mask=golden["mask"])
    for field in ("text_embeds", "speech_embeds"):
        torch.testing.assert_close(out[field][0], golden[f"forward.{field}"][0], **CLOSE)
    torch.testing.assert_close(out.logits_per_text[0, 0], golden["forward.logits_per_text"][0, 0], rtol=1e-4, atol=1e-4)


def test_golden_fixing(tmp_path: Path) -> None:
    """The decoder's output is fixed as published; rows shorter than three codes do not fail."""
    golden = golden_files.tensors("hf_partial")
    model = golden_model("hf_partial", tmp_path)
    assert torch.equal(model.fix_speech_decoder_output(golden["fixing.given"]), golden["fixing.fixed"])
    assert small_model().fix_speech_decoder_output(torch.tensor([[START, 1, STOP]])).tolist() == [[5, 8]]


@pytest.mark.parametrize(("case", "extra"), [("whole", {}), ("padded", {"pad_to_max_mel_tokens": 20})])
def test_golden_generate(case: str, extra: dict[str, int], tmp_path: Path) -> None:
    """generate gives the published codes and scores, padded to the batch's longest or to a fixed length."""
    golden = golden_files.tensors("hf_partial")
    model = golden_model("hf_partial", tmp_path)
    out = model.generate(golden["ids"][:1], golden["features"], max_new_tokens=14, **AS_PUBLISHED, **extra)
    assert torch.equal(out.speech_ids, golden[f"{case}.speech_ids"])
    for field in ("text_embeds", "speech_embeds"):
        torch.testing.assert_close(out[field], golden[f"{case}.{field}"], **CLOSE)
    torch.testing.assert_close(out.logits_per_text, golden[f"{case}.logits_per_text"], rtol=1e-4, atol=1e-4)


def generated(ids: Tensor, features: Tensor, **kwargs: object) -> ClvpOutput:
    out = small_model().generate(ids, features, return_dict_in_generate=True, **{"max_new_tokens": 12, **kwargs})
    assert isinstance(out, ClvpOutput)
    return out


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_rows_are_what_they_are_alone(side: str) -> None:
    """A text padded on either side has the candidate, the score and the embeddings that it has alone."""
    ids, features = batch()
    mask = torch.ones_like(ids)
    for row, length in ((0, 4), (2, 6)):
        kept = ids[row, :length].clone()
        places = slice(length) if side == "right" else slice(-length, None)
        ids[row], mask[row] = 0, 0
        ids[row, places], mask[row, places] = kept, 1
    together = generated(ids, features, attention_mask=mask)
    model = small_model()
    texts, whole = model.get_text_features(ids, attention_mask=mask), model(ids, features, attention_mask=mask)
    for row in range(3):
        lone, voice = ids[row : row + 1, mask[row].bool()], features[row : row + 1]
        alone = generated(lone, voice)
        length = alone.speech_ids.shape[1]
        stop = max(0, length - 3)  # the last three of a row that stopped move with the length of the batch
        assert torch.equal(together.speech_ids[row, :stop], alone.speech_ids[0, :stop])
        torch.testing.assert_close(
            together.logits_per_text[row, row], alone.logits_per_text[0, 0], rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(together.text_embeds[row], alone.text_embeds[0], **CLOSE)
        torch.testing.assert_close(texts[row], model.get_text_features(lone)[0], **CLOSE)
        one = model(lone, voice)
        torch.testing.assert_close(whole.speech_embeds[row], one.speech_embeds[0], **CLOSE)
        torch.testing.assert_close(whole.logits_per_text[row, row], one.logits_per_text[0, 0], rtol=1e-4, atol=1e-4)


def test_own_length_and_batch_padding() -> None:
    """Candidates of unequal length keep the score they have alone, unless padding to the batch is asked for."""
    ids, features = batch()
    own, padded = generated(ids, features), generated(ids, features, pad="batch")
    lengths = {generated(ids[[row]], features[[row]]).speech_ids.shape[1] for row in range(3)}
    assert len(lengths) > 1, "the model was chosen for candidates of unequal length"
    assert torch.equal(own.speech_ids, padded.speech_ids)
    assert not torch.allclose(own.speech_embeds, padded.speech_embeds)
    again = small_model().get_speech_features(padded.speech_ids)
    torch.testing.assert_close(torch.nn.functional.normalize(again, dim=-1), padded.speech_embeds, **CLOSE)


def test_a_fixed_padding_looks_at_no_neighbour() -> None:
    """Padded to a length that some candidates exceed, each still has the score that it has alone."""
    ids, features = batch()
    alone = [generated(ids[[row]], features[[row]]).speech_ids.shape[1] for row in range(3)]
    pad = (min(alone) + max(alone)) // 2
    assert min(alone) < pad < max(alone)
    whole = generated(ids, features, pad=pad)
    for row in range(3):
        one = generated(ids[[row]], features[[row]], pad=pad)
        torch.testing.assert_close(whole.speech_embeds[row], one.speech_embeds[0], **CLOSE)


def test_sampling() -> None:
    """A seed makes it repeatable row by row; without one torch.manual_seed does, and equal prompts differ."""
    ids, features = batch(1)
    sampled = {"do_sample": True, "temperature": 1.5, "num_return_sequences": 4}
    one = generated(ids, features, seed=7, **sampled)
    assert one.logits_per_text.shape == (1, 4) and len({tuple(row) for row in one.speech_ids.tolist()}) > 1
    two = generated(ids.expand(2, -1), features, seed=7, **sampled)
    assert torch.equal(two.speech_ids[:4], one.speech_ids) and torch.equal(two.speech_ids[4:], one.speech_ids)
    small_model()
    torch.manual_seed(3)
    model = small_model()
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(model.generate(ids.expand(2, -1), features, max_new_tokens=12, **sampled)[0])
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0][:4], made[0][4:])


def test_outputs() -> None:
    """Tuples begin with speech_ids; hidden states come on request, as published; the configuration stays as it was."""
    model = small_model()
    ids, features = batch()
    plain = model.generate(ids, features, max_new_tokens=6)
    assert isinstance(plain, tuple) and len(plain) == 7 and plain[0].dtype == torch.long
    out = model.generate(ids, features, max_new_tokens=6, output_hidden_states=True, return_dict_in_generate=True)
    assert [tuple(layer.shape) for layer in out.decoder_hidden_states[0]] == [(3, 12, 16)] * 3
    assert len(out.decoder_hidden_states) == out.speech_ids.shape[1]
    assert len(out.text_encoder_hidden_states) == len(out.speech_encoder_hidden_states) == 2
    assert model.generation_config == GenerationConfig(bos_token_id=START, eos_token_id=STOP)
    whole = model(ids, features, return_loss=True, output_hidden_states=True)
    assert next(iter(whole)) == "loss" and len(whole.decoder_hidden_states) == 3
    assert len(model(ids, features, return_dict=False)) == 6
    expected = torch.nn.functional.cross_entropy(whole.logits_per_text, torch.arange(3))
    expected = (expected + torch.nn.functional.cross_entropy(whole.logits_per_speech, torch.arange(3))) / 2
    torch.testing.assert_close(whole.loss, expected, **CLOSE)
    whole.loss.backward()
    assert model.logit_scale.grad is not None


@pytest.mark.parametrize("beams", [1, 2])
def test_half_precision(beams: int) -> None:
    """In bfloat16 everything runs, and similarities come in float32."""
    ids, features = batch()
    exact = small_model()(ids, features).logits_per_text
    model = small_model().bfloat16()
    rough = model(ids, features.bfloat16()).logits_per_text
    assert rough.dtype == torch.float32 and rough.shape == exact.shape
    out = model.generate(
        ids,
        features.bfloat16(),
        num_beams=beams,
        max_new_tokens=5,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    assert out.decoder_hidden_states[0][0].dtype == torch.bfloat16 and out.logits_per_text.isfinite().all()


def test_embeddings_for_ids() -> None:
    """Embeddings serve for ids in both encoders, where the published code crashes without ids."""
    model = small_model()
    ids, features = batch()
    whole = model(ids, features)
    by_embeds = model(
        input_features=features,
        conditioning_encoder_inputs_embeds=model.conditioning_encoder.text_token_embedding(ids),
        text_encoder_inputs_embeds=model.get_input_embeddings()(ids),
    )
    torch.testing.assert_close(by_embeds.logits_per_text, whole.logits_per_text, rtol=1e-4, atol=1e-4)
    embeds = model.get_input_embeddings()(ids)
    torch.testing.assert_close(
        model.get_text_features(text_encoder_inputs_embeds=embeds), model.get_text_features(ids), **CLOSE
    )


def test_speech_features_by_both_routes() -> None:
    """Generated candidates and the same codes handed in have one embedding; the text's mask is the text's."""
    model = small_model()
    ids, features = batch(1)
    mask = torch.ones_like(ids)
    made = model.get_speech_features(input_ids=ids, input_features=features, attention_mask=mask, max_new_tokens=9)
    prefix = model.conditioning_encoder(features, ids)
    codes = model.speech_decoder_model.generate(conditioning_embeds=prefix, max_new_tokens=9)
    given = model.get_speech_features(speech_ids=model.fix_speech_decoder_output(codes))
    torch.testing.assert_close(made, given, **CLOSE)
    with pytest.raises(InputError, match="speech_ids are needed"):
        model.get_speech_features(input_ids=ids)


def test_notices(caplog: pytest.LogCaptureFixture) -> None:
    """Candidates that did not stop, and sampling that beam search leaves out, are said in the log."""
    ids, features = batch()
    with caplog.at_level(logging.WARNING, logger="clvp"):
        generated(ids, features, max_new_tokens=2, num_beams=2, do_sample=True)
    assert "2 of 3 candidates did not stop" in caplog.text and "beam search here is deterministic" in caplog.text


def test_refusals() -> None:
    """What does not fit is an error that says what: texts too long, numbers that differ, codes without a vector."""
    model = small_model()
    ids, features = batch()
    with pytest.raises(TextError, match="text of 22 ids: at most 21"):
        model.generate(torch.ones(1, 22, dtype=torch.long), features)
    with pytest.raises(InputError, match="a text and the log-mels"):
        model.generate(ids)
    with pytest.raises(InputError, match="2 texts and 3 voices"):
        model.generate(ids[:2], features)
    with pytest.raises(InputError, match="make no pairs"):
        model(ids[:1], features, return_loss=True)
    with pytest.raises(ConfigError, match="unknown generation setting 'max_tokens'"):
        model.generate(ids, features, max_tokens=4)
    with torch.no_grad():
        model.speech_decoder_model.lm_head.bias[START] = 99.0
    assert model.generate(ids, features, max_new_tokens=3)[0].max() < START
    with pytest.raises(CandidateError, match=f"holds code {START}"):
        model.generate(ids, features, max_new_tokens=3, suppress_start=False)
