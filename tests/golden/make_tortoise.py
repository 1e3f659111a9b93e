"""Golden files of Tortoise (made with tortoise-tts 3.0.0 on transformers 4.46.3, DiscreteVAE from coqui-tts 0.27.2)."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from files import half, write_arrays
from oracle import builders
from tortoise.api import fix_autoregressive_output

Arrays = dict[str, Any]
CODES = 256
STOP = CODES + 1
PAD_TO = 40  # codes; Tortoise itself pads to 500
CLVP_IDS = [[62, 84, 28, 2, 179, 79, 0]]  # "Hello world" and the 0 that Tortoise's api adds


@torch.no_grad()
def make(directory: Path) -> None:
    """Write the five .pth files, tortoise.npz and dvae.npz."""
    mels = torch.randn(1, 2, 80, 9, generator=torch.Generator().manual_seed(202))  # two clips of one voice
    arrays: Arrays = {"mels": mels, "ids": torch.tensor(CLVP_IDS)}
    voice = _stopping_voice(arrays)
    arrays["vector"] = voice.get_conditioning(mels)
    arrays |= autoregressive(voice, arrays)
    torch.save(half(builders.unified_voice_state(voice)), directory / "autoregressive.pth")

    pair = builders.tortoise_clvp(seed=211)
    torch.save(half(pair.state_dict()), directory / "clvp2.pth")
    judge = builders.tortoise_cvvp(seed=221)
    torch.save(half(judge.state_dict()), directory / "cvvp.pth")
    arrays |= scores(pair, judge, arrays)

    generator = builders.random_latent(seed=231, width=24)
    torch.save(half(generator.state_dict()), directory / "rlg_auto.pth")
    noise = torch.randn(3, generator.channels, generator=torch.Generator().manual_seed(232))
    arrays |= {"rlg.noise": noise, "rlg.vectors": generator.layers(noise)}
    write_arrays(directory / "tortoise.npz", arrays)

    codec = builders.discrete_vae(seed=241, width=8, dim=12)
    torch.save(half(codec.state_dict()), directory / "dvae.pth")
    write_arrays(directory / "dvae.npz", autoencoder(codec))


def autoregressive(voice: Any, given: Arrays) -> Arrays:
    """Codes and logits of UnifiedVoice for one text (ids, with its 0) and one voice (vector, the mean of two clips).

    codes_uncached/_cached: greedy, repetition penalty 2.0 over fake prompt ids and codes, (1, T); without a cache the
    code positions are 0 1 2 3 …, with one 0 2 3 4 …. codes_plain: greedy without a penalty or cache.
    logits (1, T + 1, V): teacher-forced over `row` at the trained positions, after the start code and after each code.
    latents (1, T, D): what return_latent gives for `row`.
    """
    vector, ids = given["vector"], given["ids"]
    settings = {"max_generate_length": 20, "do_sample": False}
    out: Arrays = {}
    voice.inference_model.kv_cache = False
    out["codes_plain"] = voice.inference_speech(vector, ids, **settings)
    for name, cached in (("codes_uncached", False), ("codes_cached", True)):
        voice.inference_model.kv_cache = cached
        out[name] = voice.inference_speech(vector, ids, repetition_penalty=2.0, **settings)
    row = torch.randint(0, CODES, (1, 12), generator=torch.Generator().manual_seed(203))
    row[0, -3:] = torch.tensor([45, 45, 248])
    lengths = torch.tensor([ids.shape[1]]), torch.tensor([row.shape[1] * voice.mel_length_compression])
    latents = voice(vector, ids, lengths[0], row.clone(), lengths[1], return_latent=True, clip_inputs=False)
    logits = voice(vector, ids, lengths[0], row.clone(), lengths[1], clip_inputs=False)[2]
    return out | {"row": row, "latents": latents, "logits": logits.permute(0, 2, 1)[:, :-1]}


def scores(pair: Any, judge: Any, given: Arrays) -> Arrays:
    """CLVP and CVVP of four candidates, as Tortoise's api computes them: padded with stop codes to 40, fixed, scored.

    candidates (4, 40) as generated and padded, fixed (4, 40), clvp.scores (4,), cvvp.scores (4,) the mean over both
    clips, clvp.texts and clvp.speech (4, D) the unit vectors, clvp.own (4,) the scores without any padding.
    """
    generator = torch.Generator().manual_seed(204)
    lengths = [9, 17, 33, 40]  # the last never stops
    candidates = torch.full((4, PAD_TO), STOP)
    for row, length in zip(candidates, lengths, strict=True):
        row[:length] = torch.randint(0, CODES, (length,), generator=generator)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints about the row without a stop
        fixed = torch.stack([fix_autoregressive_output(row.clone(), STOP) for row in candidates])
        own = [
            fix_autoregressive_output(row[: length + 1].clone(), STOP)
            for row, length in zip(candidates, lengths, strict=True)
        ]
    ids = given["ids"].repeat(4, 1)
    clips = [judge(given["mels"][:, clip].repeat(4, 1, 1), fixed) for clip in range(2)]
    speech = pair.to_speech_latent(pair.speech_transformer(pair.speech_emb(fixed)).mean(1))
    return {
        "candidates": candidates,
        "fixed": fixed,
        "clvp.scores": pair(ids, fixed),
        "clvp.own": torch.cat([pair(given["ids"], row[None]) for row in own]),
        "clvp.speech": torch.nn.functional.normalize(speech, dim=-1),
        "cvvp.scores": sum(clips) / 2,
        "cvvp.clip_scores": torch.stack(clips),
    }


def autoencoder(codec: Any) -> Arrays:
    """Mels (2, 80, F) of several lengths with the codes of each, and the mel decoded from the first."""
    generator = torch.Generator().manual_seed(242)
    arrays: Arrays = {}
    for frames in (1, 2, 3, 4, 5, 19):
        mels = torch.randn(2, 80, frames, generator=generator)
        arrays |= {f"mels_{frames}": mels, f"codes_{frames}": codec.get_codebook_indices(mels)}
    return arrays | {"decoded_19": codec.decode(arrays["codes_19"])[0]}


def _stopping_voice(given: Arrays) -> Any:
    """The first model, by seed and then by its stop code's bias, whose greedy codes number 6 to 19 with the stop."""
    for seed in range(201, 231):
        voice = builders.unified_voice(seed, width=24, heads=3)
        vector = voice.get_conditioning(given["mels"])
        for _ in range(40):
            codes = voice.inference_speech(
                vector, given["ids"], max_generate_length=20, do_sample=False, repetition_penalty=2.0
            )
            if 6 <= codes.shape[1] < 20:
                return voice
            voice.mel_head.bias[STOP] += 0.25
    raise AssertionError("no seed gives codes that stop")
