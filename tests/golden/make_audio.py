"""Golden log-mels: transformers' ClvpFeatureExtractor (4.46.3) and Tortoise's TorchMelSpectrogram (3.0.0).

Tortoise's runs on torchaudio 2.11.0. The waveforms are small integer formulas, so that a test makes the same ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from files import write_arrays
from oracle import environment
from tortoise.api import format_conditioning
from tortoise.models.arch_util import TorchMelSpectrogram
from transformers import ClvpFeatureExtractor

KEPT = [*range(8), 60, 120, 250, 400, *range(509, 517)]  # the frames kept of a mel of 517


def make(directory: Path) -> None:
    """Write audio.npz.

    wave.NAME (n,) float32 at 22 050 Hz; hf.NAME (80, frames) padded or cut to six seconds, with mel norms, and
    hf_mask.NAME the sum of its attention mask; hf_plain.tone without norms; tortoise.NAME unpadded, with norms;
    format.NAME Tortoise's six-second conditioning mel (of two). Mels of 517 frames are cut to the frames in `kept`.
    """
    norms = torch.load(environment.site_packages() / "tortoise" / "data" / "mel_norms.pth", weights_only=True)
    plain = ClvpFeatureExtractor()
    normed = ClvpFeatureExtractor(mel_norms=norms.tolist())
    spectrogram = TorchMelSpectrogram()
    arrays: dict[str, Any] = {"kept": KEPT}
    for name, wave in waves().items():
        arrays[f"wave.{name}"] = wave
        out = normed(wave, sampling_rate=22050, return_tensors="np")
        arrays[f"hf.{name}"] = _cut(out["input_features"][0])
        arrays[f"hf_mask.{name}"] = int(out["attention_mask"].sum())
        sound = torch.from_numpy(wave)[None]
        arrays[f"tortoise.{name}"] = _cut(spectrogram(sound)[0].numpy())
        if name in ("tone", "six"):
            arrays[f"format.{name}"] = _cut(format_conditioning(sound, device="cpu")[0].numpy())
    out = plain(arrays["wave.tone"], sampling_rate=22050, return_tensors="np")
    arrays["hf_plain.tone"] = _cut(out["input_features"][0])
    write_arrays(directory / "audio.npz", arrays)


def waves() -> dict[str, np.ndarray]:
    """Short, exactly six seconds and silent waveforms; each is periodic or tiny, so it packs well."""
    time = np.arange(4096) / 22050
    tone = 0.4 * np.sin(2 * np.pi * 220 * time) + 0.2 * np.sin(2 * np.pi * 1760 * time)
    noise = np.random.RandomState(301).randint(-128, 128, 3000) / 512
    chirp = 0.5 * np.sin(2 * np.pi * (100 + 400 * time) * time)
    tiled = np.tile(np.round(noise[:1000] * 64) / 64, 133)[:132300]
    longer = np.tile(np.round(noise[1000:2000] * 64) / 64, 140)[:139000]
    waves = {
        "tone": tone,
        "noise": noise,
        "chirp": chirp[:2049],
        "silence": np.zeros(2000),
        "six": tiled,
        "long": longer,
    }
    return {name: wave.astype(np.float32) for name, wave in waves.items()}


def _cut(mel: np.ndarray) -> np.ndarray:
    """All frames of a short mel, the frames in KEPT of a long one."""
    return mel[:, KEPT] if mel.shape[1] > 500 else mel
