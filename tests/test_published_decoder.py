"""ClvpDecoder, ClvpModel and ClvpForCausalLM against values of transformers 4.46.3, and their cache."""

from __future__ import annotations

from pathlib import Path

import golden_files
import pytest
import torch
from published_models import START, STOP, batch, golden_model, small_model

from clvp_cli import GenerationConfig
from clvp_cli.errors import ConfigError, InputError, UsageError

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
AS_PUBLISHED = {"code_positions": "skip", "suppress_start": False}
CODES = torch.tensor([[30, 4, 9, 2, 7, 7], [30, 1, 1, 8, 20, 3]])


@pytest.mark.parametrize("name", ["hf_partial", "hf_biased"])
def test_golden_forward(name: str, tmp_path: Path) -> None:
    """Logits, loss and every layer over bare codes are the published ones."""
    golden = golden_files.tensors(name)
    decoder = golden_model(name, tmp_path).speech_decoder_model
    out = decoder(golden["codes"], labels=golden["codes"], output_hidden_states=True)
    torch.testing.assert_close(out.logits, golden["decoder.logits"], **CLOSE)
    torch.testing.assert_close(out.loss, golden["decoder.loss"], **CLOSE)
    torch.testing.assert_close(torch.stack(out.hidden_states), golden["decoder.hidden"], **CLOSE)


def test_golden_generation(tmp_path: Path) -> None:
    """Greedy codes and their logits, with and without a penalty, are the published ones at the published positions."""
    golden = golden_files.tensors("hf_partial")
    model = golden_model("hf_partial", tmp_path)
    prefix = model.conditioning_encoder(golden["features"], golden["ids"][:1])
    config = GenerationConfig(max_new_tokens=14, return_dict_in_generate=True, **AS_PUBLISHED)
    decoder = model.speech_decoder_model
    out = decoder.generate(conditioning_embeds=prefix, generation_config=config, output_logits=True)
    assert torch.equal(out.sequences, golden["greedy.sequences"])
    torch.testing.assert_close(torch.stack(out.logits), golden["greedy.logits"], rtol=1e-4, atol=1e-4)
    out = decoder.generate(conditioning_embeds=prefix, generation_config=config, repetition_penalty=2.0)
    assert torch.equal(out.sequences, golden["greedy.penalised_sequences"])


@pytest.mark.parametrize(("beams", "kept"), [(3, 1), (4, 1), (4, 2)])
def test_golden_beams(beams: int, kept: int, tmp_path: Path) -> None:
    """Beam search gives the published sequences and scores."""
    golden = golden_files.tensors("hf_partial")
    model = golden_model("hf_partial", tmp_path)
    prefix = model.conditioning_encoder(golden["features"], golden["ids"][:1])
    out = model.speech_decoder_model.generate(
        conditioning_embeds=prefix,
        num_beams=beams,
        num_return_sequences=kept,
        max_new_tokens=12,
        return_dict_in_generate=True,
        **AS_PUBLISHED,
    )
    assert torch.equal(out.sequences, golden[f"beams.{beams}_{kept}.sequences"])
    torch.testing.assert_close(out.sequences_scores, golden[f"beams.{beams}_{kept}.scores"], **CLOSE)


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_cached_equals_uncached(cut: int) -> None:
    """Codes fed on top of a cache, one or several, give the logits of one pass over all, with and without a mask."""
    decoder = small_model().speech_decoder_model
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    for extra in ({}, {"attention_mask": mask}):
        whole = decoder(CODES, **extra)
        first = decoder(CODES[:, :cut], **{name: value[:, :cut] for name, value in extra.items()})
        rest = decoder(CODES[:, cut:], past_key_values=first.past_key_values, **extra)
        kept = extra.get("attention_mask", torch.ones(2, 6))[:, cut:].bool()
        torch.testing.assert_close(rest.logits[kept], whole.logits[:, cut:][kept], **CLOSE)
        assert rest.past_key_values[0][0].shape == whole.past_key_values[0][0].shape
        order = torch.tensor([1, 0])
        swapped = decoder._reorder_cache(first.past_key_values, order)
        assert torch.equal(swapped[1][0][0], first.past_key_values[1][0][1])


def test_arguments() -> None:
    """Embeddings, positions, token types, masks, labels left out and tuples do what their names say."""
    decoder = small_model().speech_decoder_model
    whole = decoder(CODES, use_cache=False)
    assert whole.past_key_values is None
    by_embeds = decoder(inputs_embeds=decoder.get_input_embeddings()(CODES), position_ids=torch.arange(6)[None])
    torch.testing.assert_close(by_embeds.logits, whole.logits, **CLOSE)
    padded = decoder(CODES, attention_mask=torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]]))
    torch.testing.assert_close(padded.logits[1, :4], whole.logits[1, :4], **CLOSE)
    assert not torch.allclose(decoder(CODES, token_type_ids=CODES % 2).logits, whole.logits)
    assert not torch.allclose(decoder(CODES, head_mask=torch.tensor([1.0, 0.0])).logits, whole.logits)
    ones = decoder(CODES, head_mask=torch.ones(2, 2), output_attentions=True)
    torch.testing.assert_close(ones.logits, whole.logits, **CLOSE)
    assert [tuple(a.shape) for a in ones.attentions] == [(2, 2, 6, 6)] * 2
    labels = CODES.clone()
    labels[0] = -100
    loss = decoder(CODES, labels=labels, return_dict=False)[0]
    expected = torch.nn.functional.cross_entropy(whole.logits[1, :-1], CODES[1, 1:])
    torch.testing.assert_close(loss, expected, **CLOSE)
    body = decoder.model.get_decoder()(CODES, return_dict=False, output_hidden_states=True)
    assert len(body) == 3 and len(body[2]) == 3


def test_generation_continues_the_uncached_pass() -> None:
    """By default each greedy code is the most probable one of the uncached pass at the trained positions."""
    model = small_model()
    decoder = model.speech_decoder_model
    ids, features = batch()
    prefix = model.conditioning_encoder(features, ids)
    sequences = decoder.generate(conditioning_embeds=prefix, max_new_tokens=12)
    for row, sequence in zip(prefix, sequences, strict=True):
        codes = sequence[: int((sequence == STOP).int().argmax()) or None] if (sequence == STOP).any() else sequence
        logits = decoder.logits(decoder.teacher_forced(row[None], codes[None]))[0]
        logits[:, START] = -torch.inf
        assert torch.equal(logits[:-1].argmax(-1), codes[1:])


def test_shown_states_fit() -> None:
    """Hidden states, attentions and logits of generate have one entry a code, the first over the whole prompt."""
    model = small_model()
    ids, features = batch()
    prefix = model.conditioning_encoder(features, ids)
    mask = torch.ones(prefix.shape[:2])
    mask[1, -2:] = 0
    out = model.speech_decoder_model.generate(
        conditioning_embeds=prefix,
        attention_mask=mask,
        max_new_tokens=5,
        min_new_tokens=5,
        output_hidden_states=True,
        output_attentions=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert out.sequences.shape == (3, 6) and len(out.logits) == len(out.hidden_states) == len(out.attentions) == 5
    assert [tuple(step[0].shape) for step in out.hidden_states[:2]] == [(3, 11, 16), (3, 1, 16)]
    assert [tuple(step[1].shape) for step in out.attentions[:2]] == [(3, 2, 11, 11), (3, 2, 1, 12)]
    torch.testing.assert_close(out.attentions[3][0].sum(-1), torch.ones(3, 2, 1))
    again = model.speech_decoder_model.lm_head(model.speech_decoder_model.final_norm(out.hidden_states[2][-1][:, 0]))
    torch.testing.assert_close(again, out.logits[2], **CLOSE)
    shorter = model.speech_decoder_model.generate(
        conditioning_embeds=prefix[1:2, :-2], max_new_tokens=5, min_new_tokens=5
    )
    assert torch.equal(shorter[0], out.sequences[1])


def test_from_nothing() -> None:
    """Without a prefix the start code alone is continued; other codes are refused with the way to do it."""
    decoder = small_model().speech_decoder_model
    made = decoder.generate(torch.tensor([[START], [START]]), max_new_tokens=4)
    assert torch.equal(made[0], made[1]) and torch.equal(decoder.generate(max_new_tokens=4), made[:1])
    with pytest.raises(UsageError, match="continues a prefix"):
        decoder.generate(CODES)


def test_refusals() -> None:
    """Masks of a wrong size, positions beyond the table and another stop code are errors."""
    decoder = small_model().speech_decoder_model
    with pytest.raises(InputError, match="attention_mask of 5 positions"):
        decoder(CODES, attention_mask=torch.ones(2, 5))
    with pytest.raises(InputError, match="position 40: the position table holds 40"):
        decoder(torch.ones(1, 41, dtype=torch.long))
    with pytest.raises(InputError, match="head_mask"):
        decoder(CODES, head_mask=torch.ones(3, 2))
    with pytest.raises(ConfigError, match="eos_token_id is 0"):
        decoder.generate(eos_token_id=0)
