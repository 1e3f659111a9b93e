"""Tortoise's files, written by torch.save, against what Tortoise computes with the same weights."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tortoise.api import fix_autoregressive_output

import clvp_cli
from clvp_cli.generation.engine import Prompt, generate
from clvp_cli.model.conditioning import join_prefix
from clvp_cli.pipeline import Clvp
from clvp_cli.records import Candidate
from clvp_cli.settings import SamplingSettings, load_settings

from . import builders
from .live import assert_close, draws

CODES, STOP = 256, 257
IDS = [62, 84, 28, 2, 179, 79]  # "Hello world"
FIXING = [83, 45, 45, 248]


def settings(**flags: Any) -> Any:
    """The tortoise profile on the CPU, with dotted settings on top."""
    return load_settings(["tortoise"], {"device": "cpu", **flags}).settings


def tortoise_directory(directory: Path, voice: Any, **others: Any) -> Path:
    """A directory as Tortoise's models are kept, with a config.json for the heads that no shape shows."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(builders.unified_voice_state(voice), directory / "autoregressive.pth")
    for name, model in others.items():
        torch.save(model.state_dict(), directory / f"{name}.pth")
    (directory / "config.json").write_text(json.dumps({"decoder_config": {"num_attention_heads": voice.heads}}))
    return directory


def spoken(seed: int, tmp_path: Path) -> tuple[Any, Any, torch.Tensor, Clvp]:
    """A Tortoise decoder, its conditioning mels (1, clips, 80, F), its voice vector (1, D), and ours with its files."""
    heads = [2, 4, 8][seed % 3]
    voice = builders.unified_voice(seed, layers=1 + seed % 3, width=heads * 16, heads=heads)
    with torch.no_grad():
        voice.mel_head.bias[STOP] += 2.0
        mels = torch.randn(1, 2, 80, 12, generator=torch.Generator().manual_seed(seed))
        vector = voice.get_conditioning(mels)
    path = tortoise_directory(tmp_path / "model", voice, clvp2=builders.tortoise_clvp(seed))
    return voice, mels, vector, Clvp.load(path, settings())


def prefix(ours: Clvp, vector: torch.Tensor) -> torch.Tensor:
    """Our decoder prefix (P, D) of IDS and a voice vector (1, D)."""
    embedded, _ = ours.core.conditioning.text(torch.tensor([[*IDS, 0]]))
    return join_prefix(vector, embedded)[0]


@draws(4)
@torch.no_grad()
def test_voice(seed: int, tmp_path: Path) -> None:
    """The conditioning vector is Tortoise's mean over the clips."""
    _, mels, vector, ours = spoken(seed, tmp_path)
    assert_close(ours.core.conditioning.voice(mels[0]).mean(0, keepdim=True), vector)


@draws(5)
@pytest.mark.parametrize("penalty", [1.0, 2.0])
@pytest.mark.parametrize(("cached", "positions"), [(False, "trained"), (True, "skip")])
@torch.no_grad()
def test_greedy(seed: int, penalty: float, cached: bool, positions: Any, tmp_path: Path) -> None:
    """Greedy codes are Tortoise's: at the trained positions without its cache, one skipped with it."""
    voice, _, vector, ours = spoken(seed, tmp_path)
    voice.inference_model.kv_cache = cached
    expected = voice.inference_speech(
        vector, torch.tensor([[*IDS, 0]]), max_generate_length=24, do_sample=False, repetition_penalty=penalty
    )[0]
    options = SamplingSettings(
        n=1,
        greedy=True,
        repetition_penalty=penalty,
        penalty_history="tortoise",
        max_codes=24,
        code_positions=positions,
        suppress_start=False,
    )
    (found,) = generate(ours.core.decoder, [Prompt(prefix(ours, vector), 0, range(1))], options)
    codes = [*found.codes.tolist(), *([STOP] if found.stopped else [])]
    assert codes == expected.tolist()


@draws(4)
@torch.no_grad()
def test_latents(seed: int, tmp_path: Path) -> None:
    """The winner's latents are those of return_latent, cut before the ninth silence in a row."""
    from clvp_cli.generation.latents import winner_latents

    voice, _, vector, ours = spoken(seed, tmp_path)
    generator = torch.Generator().manual_seed(seed)
    for row in (torch.randint(0, CODES, (1, 20), generator=generator), torch.full((1, 20), 83)):
        row[0, :4] = torch.randint(0, CODES, (4,), generator=generator)
        text = torch.tensor([[*IDS, 0]])
        reference = voice(
            vector, text, torch.tensor([text.shape[1]]), row.clone(), torch.tensor([20 * 1024]),
            return_latent=True, clip_inputs=False,
        )[0]  # fmt: skip
        found = winner_latents(ours.core.decoder, prefix(ours, vector), row[0].numpy())
        silences = (row[0] == 83).int().tolist()
        end = next((k for k in range(20) if k >= 8 and all(silences[k - 8 : k + 1])), 20)
        assert len(found) == end
        assert_close(torch.from_numpy(found), reference[:end])


@draws(4)
@torch.no_grad()
def test_scores(seed: int, tmp_path: Path) -> None:
    """CLVP scores under the tortoise profile are Tortoise's, padded and fixed as its api does."""
    pair = builders.tortoise_clvp(seed, heads=1 + seed % 2, text_depth=1 + seed % 3, speech_depth=2)
    voice = builders.unified_voice(seed)
    path = tortoise_directory(tmp_path / "model", voice, clvp2=pair)
    rng = np.random.RandomState(seed)
    lengths = [5, 11, 29, 48]
    rows = [rng.randint(0, CODES, length) for length in lengths]
    padded = torch.full((4, 48), STOP)
    for row, codes in zip(padded, rows, strict=True):
        row[: len(codes)] = torch.from_numpy(codes)
    with contextlib.redirect_stdout(io.StringIO()):
        fixed = torch.stack([fix_autoregressive_output(row.clone(), STOP) for row in padded])
    expected = pair(torch.tensor([[*IDS, 0]]).repeat(4, 1), fixed)
    ours = Clvp.load(path, settings(**{"scoring.pad": 48}))
    candidates = [Candidate(codes.astype(np.int64), len(codes) < 48, i) for i, codes in enumerate(rows)]
    found = [scored.signals["clvp"] for scored in ours.score("Hello world", candidates)]
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-4, rtol=2e-4)
    own = Clvp.load(path, settings(**{"scoring.pad": "own"}))
    for place, codes in enumerate(rows[:3]):
        alone = fix_autoregressive_output(torch.from_numpy(np.append(codes, STOP)), STOP)[None]
        score = own.score("Hello world", [candidates[place]])[0].signals["clvp"]
        np.testing.assert_allclose(score, pair(torch.tensor([[*IDS, 0]]), alone)[0], atol=2e-4, rtol=2e-4)


@draws(3)
@torch.no_grad()
def test_converted(seed: int, tmp_path: Path) -> None:
    """A converted directory, loaded by transformers, scores codes as Tortoise does but for its norm's epsilon."""
    from transformers import ClvpModelForConditionalGeneration

    pair = builders.tortoise_clvp(seed, heads=2)
    path = tortoise_directory(tmp_path / "model", builders.unified_voice(seed), clvp2=pair)
    clvp_cli.ClvpModelForConditionalGeneration.from_pretrained(path).save_pretrained(tmp_path / "converted")
    model = ClvpModelForConditionalGeneration.from_pretrained(tmp_path / "converted").eval()
    codes = torch.randint(0, CODES, (4, 20), generator=torch.Generator().manual_seed(seed))
    ids = torch.tensor([[*IDS, 0]])
    text, speech = model.get_text_features(ids), model.get_speech_features(codes)
    text, speech = (torch.nn.functional.normalize(each, dim=-1) for each in (text, speech))
    assert_close((speech @ text.t())[:, 0] * model.logit_scale.exp(), pair(ids.repeat(4, 1), codes), atol=2e-3)


@draws(4)
@torch.no_grad()
def test_cvvp(seed: int, tmp_path: Path) -> None:
    """CVVP scores of codes with a voice are Tortoise's."""
    from clvp_cli.checkpoints.modules import load_module
    from clvp_cli.model.cvvp import Cvvp, CvvpConfig

    judge = builders.tortoise_cvvp(seed, heads=1 + seed % 2, depth=1 + seed % 2)
    voice = builders.unified_voice(seed)
    path = tortoise_directory(tmp_path / "model", voice, clvp2=builders.tortoise_clvp(seed), cvvp=judge)
    extra = Clvp.load(path, settings()).core.checkpoint.extras["cvvp"]
    ours = Cvvp(CvvpConfig.from_dict(extra.config)).eval()
    load_module(ours, extra.state(), torch.float32, "cpu", where=str(path))
    generator = torch.Generator().manual_seed(seed)
    mels = torch.randn(3, 80, 40, generator=generator)
    codes = torch.randint(0, CODES, (3, 17), generator=generator)
    assert_close(ours(mels, codes), judge(mels, codes))


@draws(3)
@torch.no_grad()
def test_random_voice(seed: int, tmp_path: Path) -> None:
    """Noise becomes the voice vector that Tortoise makes of it."""
    voice = builders.unified_voice(seed, width=48, heads=2)
    generator = builders.random_latent(seed, width=48)
    path = tortoise_directory(tmp_path / "model", voice, clvp2=builders.tortoise_clvp(seed), rlg_auto=generator)
    ours = Clvp.load(path, settings()).core.random_voices
    noise = torch.randn(4, 48, generator=torch.Generator().manual_seed(seed))
    assert_close(ours(noise), generator.layers(noise))


@draws(3)
@torch.no_grad()
def test_codec(seed: int, tmp_path: Path) -> None:
    """Mels of any length become the codes of Tortoise's autoencoder, and codes its mel."""
    codec = builders.discrete_vae(seed, width=[8, 24][seed % 2], dim=16, codes=CODES)
    voice = builders.unified_voice(seed)
    path = tortoise_directory(tmp_path / "model", voice, clvp2=builders.tortoise_clvp(seed), dvae=codec)
    ours = Clvp.load(path, settings()).core.codec
    for frames in (1, 2, 4, 7, 33, 100):
        mels = torch.randn(2, 80, frames, generator=torch.Generator().manual_seed(seed + frames))
        codes = codec.get_codebook_indices(mels)
        assert torch.equal(ours.encode(mels), codes)
        assert_close(ours.decode(codes, None), codec.decode(codes)[0])
