"""Scores: the published code's for each candidate alone, whatever it is batched with; Tortoise's under its profile."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from golden_files import hf_directory, tensors, tortoise_directory

from clvp_cli.errors import CandidateError, CheckpointError, ConfigError
from clvp_cli.generation.engine import Prompt, generate
from clvp_cli.model.clvp import unit
from clvp_cli.model.conditioning import join_prefix
from clvp_cli.pipeline import Clvp
from clvp_cli.records import Candidate
from clvp_cli.settings import SamplingSettings, ScoringSettings, Settings
from clvp_cli.signals import judge
from clvp_cli.signals.clvp import ClvpSignal
from clvp_cli.signals.speech import SpeechReader, buckets

HF = SamplingSettings(
    greedy=True,
    repetition_penalty=1.0,
    max_codes=14,
    code_positions="skip",
    penalty_history="start",
    suppress_start=False,
)


def load(directory, **scoring):
    return Clvp.load(directory, Settings(scoring=ScoringSettings(**scoring)))


def logits(clvp, ids, candidates):
    core = clvp.core
    return judge([core.clvp], core.reader, ids, candidates)["clvp"]


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    return hf_directory("hf_partial", tmp_path_factory.mktemp("hf"))


@pytest.fixture(scope="module")
def tortoise(tmp_path_factory):
    return tortoise_directory(tmp_path_factory.mktemp("tortoise"))


@pytest.mark.parametrize(("pad", "key", "length"), [("batch", "whole", None), (19, "padded", 19)])
def test_candidates_and_scores_are_those_of_transformers_generate(hf, pad, key, length):
    """Greedy candidates under the hf profile, as fixed, and their logits are those of transformers' generate().

    pad=N is pad_to_max_mel_tokens, which counts the start code: 19 here is 20 there.
    """
    want = tensors("hf_partial")
    clvp = load(hf, pad=pad)
    conditioning, ids = clvp.core.conditioning, want["ids"][:1]
    with torch.no_grad():
        text, _ = conditioning.text(torch.cat((ids, torch.tensor([[0]])), dim=1))
        prefixes = join_prefix(conditioning.voice(want["features"]), text)
    made = generate(clvp.core.decoder, [Prompt(prefix, 0, [0]) for prefix in prefixes], HF)
    found = sorted((g.prompt, g.codes.tolist(), g.stopped) for g in made)
    candidates = [Candidate(np.array(codes), stopped, index) for index, codes, stopped in found]
    length = length or max(c.length + c.stopped for c in candidates)
    fixed = [clvp.core.reader.codes(candidate, length).tolist() for candidate in candidates]
    assert fixed == want[f"{key}.speech_ids"].tolist()
    np.testing.assert_allclose(logits(clvp, ids[0].numpy(), candidates), want[f"{key}.logits_per_text"][0], atol=1e-5)


def test_tortoises_scores(tortoise):
    """Under its profile, candidates score as Tortoise scores them, padded to one length or at their own."""
    want = tensors("tortoise")
    for pad, key in ((40, "clvp.scores"), ("own", "clvp.own")):
        clvp = load(tortoise, pad=pad, rms_norm="clamp")
        stop = clvp.core.book.stop
        rows = [
            Candidate(row[: (row == stop).argmax()] if stop in row else row, stop in row, index=i)
            for i, row in enumerate(want["candidates"].numpy())
        ]
        made = logits(clvp, want["ids"][0, :-1].numpy(), rows)  # the ids carry the closing 0 there
        np.testing.assert_allclose(made, want[key], atol=1e-4)


def many(count=24, low=2, high=40, vocab=60):
    draw = np.random.default_rng(3)
    return [
        Candidate(draw.integers(0, vocab, draw.integers(low, high)), bool(draw.integers(0, 2)), index=i)
        for i in range(count)
    ]


@pytest.mark.parametrize("batch_size", [0, 1, 3])
def test_a_score_is_its_candidates_alone(hf, batch_size):
    """Scored with 23 others of other lengths a candidate has the score it has alone, within 1e-5."""
    clvp = Clvp.load(hf, dataclasses.replace(Settings(), batch_size=batch_size))
    ids = np.array([4, 5, 6])
    candidates = many()
    together = logits(clvp, ids, candidates)
    alone = [logits(clvp, ids, [candidate])[0] for candidate in candidates]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_own_length_is_the_published_score_alone(hf):
    """The default score of one candidate is what pad=batch gives when the batch is that candidate."""
    own, batch = load(hf), load(hf, pad="batch")
    ids = np.array([9, 8, 7, 6])
    for candidate in many(6):
        assert logits(own, ids, [candidate])[0] == pytest.approx(logits(batch, ids, [candidate])[0], abs=1e-6)


def test_padding_moves_scores_when_asked_to(hf):
    """pad=batch is not pad=own: the published behaviour is there by name only."""
    ids = np.array([9, 8, 7, 6])
    moved = np.abs(logits(load(hf), ids, many()) - logits(load(hf, pad="batch"), ids, many()))
    assert moved.max() > 0.05


@pytest.mark.parametrize("codes", [[], [999], [-1, 3]])
def test_codes_that_cannot_be_heard_are_an_error(hf, codes):
    """An empty candidate that never stopped, or a code outside the speech vocabulary, names the row."""
    with pytest.raises(CandidateError, match="row 7"):
        logits(load(hf), np.array([3]), [Candidate(np.array(codes, dtype=np.int64), False, index=7)])


def test_a_candidate_that_stops_at_once_has_the_published_score(hf):
    """A profile that allows it may stop at the first code: what is judged is the fixed stop."""
    clvp = load(hf)
    assert clvp.core.reader.codes(Candidate(np.zeros(0, dtype=np.int64), True)).tolist() == [21]


def test_scoring_loads_no_decoder(hf):
    """Scoring reads the encoders alone."""
    clvp = load(hf)
    logits(clvp, np.array([4, 5]), many(3))
    assert "decoder" not in vars(clvp.core) and "conditioning" not in vars(clvp.core)


def test_buckets_hold_one_length_and_a_bounded_number_of_codes():
    """Every place comes once, in batches of equal length within the token budget."""
    lengths = np.random.default_rng(0).integers(1, 500, 400).tolist()
    seen = []
    for members in buckets(lengths):
        assert len({lengths[m] for m in members}) == 1
        assert len(members) * lengths[members[0]] <= 8192
        seen += members
    assert sorted(seen) == list(range(400))


def test_reduced_precision_ranks_alike(hf):
    """bfloat16 scores stay within 0.2 of float32's on a logit scale of 14."""
    ids = np.array([4, 5, 6])
    exact = logits(load(hf), ids, many())
    half = logits(Clvp.load(hf, Settings(dtype="bfloat16")), ids, many())
    assert np.abs(exact - half).max() < 0.2
    assert torch.finfo(torch.bfloat16).bits == 16


def test_a_stop_written_in_the_text_draws_the_closing_stop_to_it(hf):
    """As in transformers' generate, the extra 0 of a text that holds a 0 goes before that one, not to the end."""
    clvp = load(hf)
    ids = np.array([5, 9, 0, 6])
    with torch.no_grad():
        published = unit(clvp.core.text_encoder.embed(torch.tensor([[5, 9, 0, 0, 6]])))[0]
    torch.testing.assert_close(clvp.core.clvp.text_vector(ids), published)


def test_fixing_codes_outside_the_speech_vocabulary_are_named(hf):
    """A configuration whose fixing codes the speech encoder does not have is an error that says so."""
    config = dataclasses.replace(load(hf).core.config.decoder_config, decoder_fixing_codes=[83, 45, 45, 248])
    reader = SpeechReader(load(hf).core.speech_encoder, config)
    with pytest.raises(ConfigError, match="decoder_fixing_codes"):
        reader.codes(Candidate(np.array([1, 2, 3]), True, 0))


@pytest.mark.parametrize("scale", [-1e30, -float("inf"), 1e4, float("inf")])
def test_a_scale_that_leaves_no_logit_is_refused(tmp_path, scale) -> None:
    """A logit_scale whose exponential is 0 or infinite is an error, not a division by it or a score of null."""
    core = load(hf_directory("hf_partial", tmp_path)).core
    with pytest.raises(CheckpointError, match="logit_scale is "):
        ClvpSignal(core.text_encoder, core.speech_encoder, torch.tensor(scale))
