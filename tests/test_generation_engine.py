"""The engine: greedy codes as published, candidates that depend on nothing but themselves, beams as published."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from golden_files import hf_directory, network, tensors, tortoise_directory
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from clvp_cli.generation import engine
from clvp_cli.generation.beam import beam_search
from clvp_cli.generation.engine import Prompt, generate, longest_possible, rows_that_fit
from clvp_cli.generation.graphs import Replays
from clvp_cli.generation.latents import calm_end, winner_latents
from clvp_cli.model.products import FEW_ROWS
from clvp_cli.settings import SamplingSettings

GREEDY = SamplingSettings(greedy=True, repetition_penalty=1.0, max_codes=14)
HF = dataclasses.replace(GREEDY, code_positions="skip", penalty_history="start", suppress_start=False)


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """(decoder, prefixes of two voices, golden tensors)."""
    net, want = network(hf_directory("hf_partial", tmp_path_factory.mktemp("hf"))), tensors("hf_partial")
    with torch.no_grad():
        prefixes = net.conditioning_encoder(want["features"], want["ids"][:1])
    return net.speech_decoder_model, prefixes, want


def collect(decoder, prompts, options, **more):
    """{(prompt, index): (codes, stopped)} of a run."""
    made = generate(decoder, prompts, options, **more)
    return {(g.prompt, g.index): (g.codes.tolist(), g.stopped) for g in made}


def published_rows(sequences, stop):
    """(codes, stopped) of published sequences, which begin with the start code."""
    rows = []
    for row in sequences[:, 1:].tolist():
        stopped = stop in row
        rows.append((row[: row.index(stop)] if stopped else row, stopped))
    return rows


def prompts_of(prefixes, count=1, seed=5):
    return [Prompt(prefix, seed, range(count)) for prefix in prefixes]


def test_greedy_under_hf_is_transformers(golden):
    """With its code positions, greedy codes are those of transformers 4.46.3, with and without a penalty."""
    decoder, prefixes, want = golden
    stop = decoder.config.eos_token_id
    for key, options in (
        ("greedy.sequences", HF),
        ("greedy.penalised_sequences", dataclasses.replace(HF, repetition_penalty=2.0)),
    ):
        made = collect(decoder, prompts_of(prefixes), options)
        assert [made[0, 0], made[1, 0]] == published_rows(want[key], stop)


def test_greedy_by_default_is_the_uncached_pass(golden):
    """At the trained positions the cached greedy codes are the argmaxes of the uncached pass over themselves."""
    decoder, prefixes, _ = golden
    made = collect(decoder, prompts_of(prefixes), GREEDY)
    for number, prefix in enumerate(prefixes):
        codes, stopped = made[number, 0]
        fed = torch.tensor([[decoder.config.bos_token_id, *codes]])
        with torch.no_grad():
            logits = decoder.logits(decoder.teacher_forced(prefix[None], fed))[0]
        logits[:, decoder.config.bos_token_id] = -torch.inf
        best = logits.argmax(-1).tolist()
        assert codes == best[: len(codes)]
        assert not stopped or best[len(codes)] == decoder.config.eos_token_id


SAMPLED = SamplingSettings(max_codes=30, temperature=1.1, top_p=0.95)


@pytest.mark.parametrize("options", [SAMPLED, dataclasses.replace(SAMPLED, top_k=0, typical_p=0.9, top_p=1.0)])
def test_candidates_do_not_depend_on_their_number_or_batch(golden, options):
    """The first 3 of 8 are the 3 of N = 3, at batch sizes 1, 2, 3, 5 and 8, with rows refilled from another prompt."""
    decoder, prefixes, _ = golden
    prompts = prompts_of(prefixes, 8)
    whole = collect(decoder, prompts, options)
    for size in (1, 2, 3, 5, 8):
        assert collect(decoder, prompts, options, batch_size=size) == whole
    few = collect(decoder, prompts_of(prefixes, 3), options)
    assert few == {key: value for key, value in whole.items() if key[1] < 3}
    assert collect(decoder, [Prompt(prefixes[0], 5, [6])], options)[0, 6] == whole[0, 6]
    assert len({tuple(codes) for codes, _ in whole.values()}) > 8, "candidates should differ"


def test_many_candidates_stay_within_memory(golden, monkeypatch):
    """Few are run at once; of more, as many rows as the caches' budget holds at their longest, four at least."""
    decoder = golden[0]
    config, options = decoder.config, SamplingSettings(max_codes=10)
    a_row = 2 * config.num_hidden_layers * config.hidden_size * 4 * 10
    monkeypatch.setattr("clvp_cli.generation.engine.CACHE_BYTES", 9.5 * a_row)
    asked = ((0, 1), (0, 16), (0, 17), (5, 17), (5, 3))
    assert [rows_that_fit(decoder, options, size, n) for size, n in asked] == [1, 16, 9, 5, 3]
    monkeypatch.setattr("clvp_cli.generation.engine.CACHE_BYTES", a_row)
    assert rows_that_fit(decoder, options, 0, 96) == FEW_ROWS


SYNCS = ("_local_scalar_dense", "nonzero", "_to_copy", "lift_fresh")  # ask the host, or copy what it has


class Recorder(TorchDispatchMode):
    """Captures as a CUDA graph does: every operation with the very tensors it had, none that asks the host."""

    def __init__(self):
        super().__init__()
        self.tape = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in SYNCS if name != "_to_copy" or "cpu" in str(kwargs)), func
        made = func(*args, **(kwargs or {}))
        self.tape.append((func, args, kwargs or {}, made))
        return made

    def replay(self):
        """Do it again: what the tape made itself is made anew, everything else is what it was."""
        anew = {}
        for func, args, kwargs, made in self.tape:
            args, kwargs = tree_map_only(torch.Tensor, lambda t: anew.get(id(t), t), (args, kwargs))
            before, after = tree_leaves(made), tree_leaves(func(*args, **kwargs))
            anew.update({id(a): b for a, b in zip(before, after, strict=True)})


def recorded(static):
    """A capture that keeps the state of `static` as it was before: capturing a graph does not run it."""

    def capture(work):
        kept = [tensor.clone() for tensor in static()]
        with Recorder() as recorder:
            work()
        for tensor, old in zip(static(), kept, strict=True):
            tensor.copy_(old)
        return recorder.replay

    return capture


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_captured_steps_give_the_same_candidates(golden, monkeypatch, dtype):
    """Steps and sampling that are replayed with the tensors they were captured with, as CUDA graphs are: the same
    candidates, with rows that end, a prompt that follows another, and caches that grow."""
    decoder, prefixes = copy.deepcopy(golden[0]).to(dtype), golden[1].to(dtype)
    prompts, options = prompts_of(prefixes, 6), dataclasses.replace(SAMPLED, max_codes=60)
    want = collect(decoder, prompts, options, batch_size=6)
    replays = []

    class Capturing(engine.Slots):
        def __init__(self, *args):
            super().__init__(*args)
            self.cache.block = 4
            tables = (self.codes, self.said, self.counts, self.logprobs, self.logits, self.ended, self.cache.lengths)
            static = lambda: (*tables, *self.cache.layers)  # noqa: E731
            self.sampling.capture = self.feeding.capture = recorded(static)
            replays.extend((self.sampling, self.feeding))

    monkeypatch.setattr(engine, "Slots", Capturing)
    assert collect(decoder, prompts, options, batch_size=6) == want
    assert all(replay.capture and any(replay.replays.values()) for replay in replays)


def test_what_cannot_be_captured_is_done(caplog):
    """Work is done the first time, captured the second, and done as before, with a warning, where that fails."""
    done = []

    def fails(work):
        raise RuntimeError("operation not permitted")

    replays = Replays(torch.device("cpu"))
    replays.capture = fails
    for _ in range(3):
        replays.run(2, lambda: done.append(1))
    assert len(done) == 3 and replays.capture is None and "not permitted" in caplog.text


def test_another_seed_gives_other_candidates(golden):
    """The seed matters; the same seed repeats itself."""
    decoder, prefixes, _ = golden
    one, two = (collect(decoder, prompts_of(prefixes, 4, seed), SAMPLED) for seed in (1, 2))
    assert one != two
    assert one == collect(decoder, prompts_of(prefixes, 4, 1), SAMPLED)


def test_logprobs_are_the_models_own(golden):
    """A candidate's logprob is the sum over its codes, and its stop, of the uncached pass's log-probabilities."""
    decoder, prefixes, _ = golden
    for made in generate(decoder, prompts_of(prefixes[:1], 4), SAMPLED):
        said = [*made.codes.tolist(), *([decoder.config.eos_token_id] if made.stopped else [])]
        fed = torch.tensor([[decoder.config.bos_token_id, *said[:-1]]])
        with torch.no_grad():
            log_p = decoder.logits(decoder.teacher_forced(prefixes[:1], fed))[0].log_softmax(-1)
        assert made.logprob == pytest.approx(float(log_p[range(len(said)), said].sum()), abs=1e-3)


def test_limits_are_kept(golden):
    """min_codes holds the stop back, max_codes and the position table end a candidate, the start code never comes."""
    decoder, prefixes, _ = golden
    for made in generate(decoder, prompts_of(prefixes, 6), dataclasses.replace(SAMPLED, min_codes=9, max_codes=12)):
        assert 9 <= len(made.codes) <= 12
        assert decoder.config.bos_token_id not in made.codes
    table = decoder.config.max_position_embeddings
    long = dataclasses.replace(SAMPLED, min_codes=500, max_codes=500)
    assert longest_possible(decoder, long) == table
    assert longest_possible(decoder, dataclasses.replace(long, code_positions="skip")) == table - 1
    for positions, length in (("trained", table), ("skip", table - 1)):
        made = next(generate(decoder, prompts_of(prefixes[:1]), dataclasses.replace(long, code_positions=positions)))
        assert len(made.codes) == length and not made.stopped


@pytest.mark.parametrize(("width", "kept"), [(3, 1), (4, 1), (4, 2)])
def test_beams_are_transformers(golden, width, kept):
    """Beam search finds the sequences and scores of transformers 4.46.3."""
    decoder, prefixes, want = golden
    options = dataclasses.replace(HF, beams=width, max_codes=12)
    found = [made for p in prompts_of(prefixes, kept) for made in beam_search(decoder, p, options)]
    stop = decoder.config.eos_token_id
    rows = [(made.codes.tolist(), made.stopped) for made in found]
    assert rows == published_rows(want[f"beams.{width}_{kept}.sequences"], stop)
    scores = [made.logprob / (len(made.codes) + made.stopped) for made in found]
    np.testing.assert_allclose(scores, want[f"beams.{width}_{kept}.scores"], atol=1e-5)


def test_one_beam_is_greedy(golden):
    """A beam of one is the greedy sequence."""
    decoder, prefixes, _ = golden
    options = dataclasses.replace(GREEDY, beams=1)
    assert (
        beam_search(decoder, prompts_of(prefixes)[0], options)[0].codes.tolist()
        == collect(decoder, prompts_of(prefixes[:1]), GREEDY)[0, 0][0]
    )


@pytest.fixture(scope="module")
def tortoise(tmp_path_factory):
    """(decoder, prefix, golden tensors) of the tiny Tortoise model."""
    net, want = network(tortoise_directory(tmp_path_factory.mktemp("tortoise"))), tensors("tortoise")
    with torch.no_grad():
        vector = net.conditioning_encoder.voice(want["mels"][0]).mean(0, keepdim=True)
        torch.testing.assert_close(vector, want["vector"], rtol=1e-5, atol=1e-5)
        text, _ = net.conditioning_encoder.text(want["ids"])
    return net.speech_decoder_model, torch.cat((vector[None], text), dim=1)[0], want


@pytest.mark.parametrize(
    ("key", "positions", "penalty"),
    [("codes_plain", "trained", 1.0), ("codes_uncached", "trained", 2.0), ("codes_cached", "skip", 2.0)],
)
def test_greedy_under_tortoise_is_tortoise(tortoise, key, positions, penalty):
    """Greedy codes are Tortoise's, cached and not, with its penalty over fake prompt ids."""
    decoder, prefix, want = tortoise
    options = dataclasses.replace(
        HF, max_codes=20, code_positions=positions, repetition_penalty=penalty, penalty_history="tortoise"
    )
    codes, stopped = collect(decoder, [Prompt(prefix, 0, [0])], options)[0, 0]
    expected = [code for code in want[key][0].tolist() if code != decoder.config.eos_token_id]
    assert codes[: len(expected)] == expected
    assert stopped == (len(codes) < 20)


def test_latents_are_tortoises(tortoise):
    """The winner's latents are those that Tortoise's return_latent gives, one vector a code."""
    decoder, prefix, want = tortoise
    codes = want["row"][0].numpy()
    made = winner_latents(decoder, prefix, codes)
    np.testing.assert_allclose(made, want["latents"][0][: calm_end(codes, 83)], atol=1e-5)


def test_latents_end_at_the_ninth_silence():
    """Eight silences in a row are left in, the ninth ends the latents."""
    assert calm_end(np.array([1, *[83] * 8, 2, *[83] * 9, 4]), 83) == 18
    assert calm_end(np.array([83] * 8), 83) == 8
