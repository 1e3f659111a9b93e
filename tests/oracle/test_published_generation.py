"""Generation against transformers' own, whose cache makes it skip code position 1 (code_positions="skip")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from .live import assert_close, batch, draws, exchange, random_model

SKIP = {"code_positions": "skip"}
# transformers may stop at once, and then cannot fix fewer than three codes; here an empty candidate is never made
LEAST = {"min_new_tokens": 3}


def prefixes(model: Any, seed: int) -> torch.Tensor:
    """Prefixes (2, P, D) of one text with two voices."""
    given = batch(model, seed)
    out: torch.Tensor = model.conditioning_encoder(
        input_features=given["input_features"], input_ids=given["input_ids"][:1]
    )
    return out


@draws(5)
@pytest.mark.parametrize(
    "options", [{}, {"repetition_penalty": 2.0}, {"min_new_tokens": 6}, {"max_length": 26}], ids=str
)
@torch.no_grad()
def test_greedy(seed: int, options: dict[str, Any], tmp_path: Path) -> None:
    """Greedy codes and the logits behind them are those of transformers, at its positions."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    settings = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True} | LEAST | options
    if "max_length" not in options:
        settings["max_new_tokens"] = 16
    reference = theirs.speech_decoder_model.generate(conditioning_embeds=prefixes(theirs, seed), **settings)
    found = ours.speech_decoder_model.generate(conditioning_embeds=prefixes(theirs, seed), **settings, **SKIP)
    assert torch.equal(found.sequences, reference.sequences)
    stops = (reference.sequences == theirs.config.decoder_config.eos_token_id).long()
    for row, length in enumerate(torch.where(stops.any(1), stops.argmax(1), stops.shape[1] - 1).tolist()):
        for step in range(length):  # behind its stop a row is filled, with what no one reads
            assert_close(found.logits[step][row], reference.logits[step][row])


@draws(5)
@pytest.mark.parametrize(("beams", "kept"), [(2, 1), (3, 1), (3, 3), (4, 2)])
@torch.no_grad()
def test_beams(seed: int, beams: int, kept: int, tmp_path: Path) -> None:
    """Beam search finds the sequences of transformers, with their scores."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    settings = {"max_new_tokens": 12, "do_sample": False, "num_beams": beams, "num_return_sequences": kept} | LEAST
    settings |= {"return_dict_in_generate": True, "output_scores": True}
    reference = theirs.speech_decoder_model.generate(conditioning_embeds=prefixes(theirs, seed), **settings)
    settings.pop("output_scores")
    found = ours.speech_decoder_model.generate(conditioning_embeds=prefixes(theirs, seed), **settings, **SKIP)
    assert_close(found.sequences_scores, reference.sequences_scores)
    assert torch.equal(found.sequences, reference.sequences)


@draws(4)
@torch.no_grad()
def test_trained_positions(seed: int, tmp_path: Path) -> None:
    """By default each code is the most probable one of transformers' uncached pass at positions 0 1 2 …"""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    prefix = prefixes(theirs, seed)[:1]
    config, decoder = theirs.config.decoder_config, theirs.speech_decoder_model
    table, embedding = decoder.model.decoder.position_embeds_layer, decoder.model.decoder.input_embeds_layer
    codes = torch.tensor([[config.bos_token_id]])
    while codes.shape[1] <= 14 and int(codes[0, -1]) != config.eos_token_id:
        whole = torch.cat([prefix, embedding(codes) + table(torch.arange(codes.shape[1]))], dim=1)
        bare = whole - table(torch.arange(whole.shape[1]))  # the forward pass adds these to every input
        logits = decoder(inputs_embeds=bare, use_cache=False).logits[:, -1]
        if codes.shape[1] <= LEAST["min_new_tokens"]:
            logits[:, config.eos_token_id] = -torch.inf
        step = logits.argmax(-1, keepdim=True)
        codes = torch.cat([codes, step], dim=1)
    found = ours.speech_decoder_model.generate(conditioning_embeds=prefix, max_new_tokens=14, do_sample=False, **LEAST)
    assert torch.equal(found, codes)


@draws(4)
@pytest.mark.parametrize("padded", [None, 24])
@torch.no_grad()
def test_composite(seed: int, padded: int | None, tmp_path: Path) -> None:
    """generate() of the whole model gives transformers' fixed codes and, padded as there, its scores and embeddings."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    given = batch(theirs, seed)
    given["input_ids"] = given["input_ids"][:1]
    settings = {"max_new_tokens": 16, "do_sample": False, "return_dict_in_generate": True} | LEAST
    if padded:
        settings["pad_to_max_mel_tokens"] = padded
    reference = theirs.generate(**given, **settings)
    found = ours.generate(**given, **settings, **SKIP, pad="batch")
    assert torch.equal(found.speech_ids, reference.speech_ids)
    for name in ("logits_per_text", "logits_per_speech", "text_embeds", "speech_embeds"):
        assert_close(getattr(found, name), getattr(reference, name), rtol=1e-3, atol=1e-3)


@draws(4)
@torch.no_grad()
def test_scores_alone(seed: int, tmp_path: Path) -> None:
    """By default a candidate of a batch has the score that transformers gives it when it is generated alone."""
    theirs = random_model(seed)
    ours = exchange(theirs, tmp_path)
    given = batch(theirs, seed, rows=3)
    given["input_ids"] = given["input_ids"][:1]
    settings = {"max_new_tokens": 16, "do_sample": False, "return_dict_in_generate": True} | LEAST
    found = ours.generate(**given, **settings, **SKIP)
    for row in range(3):
        alone = theirs.generate(
            input_ids=given["input_ids"], input_features=given["input_features"][row : row + 1], **settings
        )
        assert_close(found.logits_per_text[0, row], alone.logits_per_text[0, 0], rtol=1e-3, atol=1e-3)


@draws(4)
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "typical", "penalty"),
    [(0.8, 50, 0.8, 1.0, 2.0), (1.0, 5, 1.0, 1.0, 1.0), (0.5, 0, 0.95, 1.0, 1.3), (1.2, 20, 1.0, 0.7, 1.0)],
)
def test_sampling(
    seed: int, temperature: float, top_k: int, top_p: float, typical: float, penalty: float
) -> None:  # fmt: skip
    """Over evenly spread draws, each code comes as often as transformers' processed probabilities say."""
    from clvp_cli.generation.sampler import choose
    from clvp_cli.settings import SamplingSettings

    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(1, 70, generator=generator)
    history = torch.randint(0, 70, (1, 9), generator=generator)
    steps: list[Any] = [RepetitionPenaltyLogitsProcessor(penalty), TemperatureLogitsWarper(temperature)]
    steps += [TopKLogitsWarper(top_k)] if top_k else []
    steps += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    steps += [TypicalLogitsWarper(typical)] if typical < 1 else []
    expected = LogitsProcessorList(steps)(history, logits.clone()).softmax(-1)[0]
    count = 20000
    spread = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    said = torch.zeros(1, 70, dtype=torch.bool).scatter(1, history, True).expand(count, -1)
    options = SamplingSettings(
        temperature=temperature, top_k=top_k, top_p=top_p, typical_p=typical, repetition_penalty=penalty
    )
    chosen = choose(logits.expand(count, -1), said, spread, options)
    found = torch.bincount(chosen, minlength=70).double() / count
    assert float((found - expected).abs().max()) < 2.5 / count
    assert torch.equal(found > 0, expected > 1.0 / count) or bool(((found > 0) <= (expected > 0)).all())
