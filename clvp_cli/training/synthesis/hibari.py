"""hibari-tts: one American voice at 100 times real time, made into many by pitch and vocal-tract length.

The network gives a spectral envelope and a pitch curve frame by frame, so both can be moved apart: the curve is
multiplied before the waveform is made, and the waveform is then played faster or slower, which moves the formants.
Owns nothing of texts or files. Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from clvp_cli.training.synthesis.engine import Speech, need

RATE = 24000


def phonemizer() -> Callable[[str], str]:
    """English text → its American phones, a character each, words apart; stress marks and punctuation stay."""
    phones: Callable[[str], str] = need("hibari.g2p", "hibari-tts").G2P(british=False)
    return phones


class Hibari:
    """The voice that ships inside the wheel."""

    def __init__(self) -> None:
        self.tts = need("hibari", "hibari-tts").Hibari(threads=1)
        self.dsp = need("hibari.dsp", "hibari-tts")

    def __call__(self, text: str, voice: dict[str, Any], rng: np.random.Generator) -> Speech:
        """Voice {"speed": pace, "pitch": factor, "formant": factor}, 1 each being the voice itself → speech."""
        formant, parts = float(voice.get("formant", 1.0)), []
        for phonemes in self.tts.phonemize(text):
            ids = np.asarray([self.tts.ids(phonemes)], np.int64)
            # Played `formant` times as fast afterwards, so spoken that much slower and lower now.
            feed = {"ids": ids, "speed": np.asarray([voice["speed"] / formant], np.float32)}
            harmonic, angle, noise, rest, phase, f0 = (o[0] for o in self.tts.sess.run(None, feed))
            pitch = float(voice.get("pitch", 1.0)) / formant
            parts.append(self.dsp.synth(harmonic, angle, noise, rest, phase, f0 * np.float32(pitch), rng))
        return Speech(np.concatenate(parts) if parts else np.zeros(0, np.float32), RATE * formant)
