"""Judges from outside the family: a phoneme recogniser, a speaker encoder, a predictor of opinion scores.

They come with the extra `bench` and are loaded when first asked for. None of them shares weights, data or a codec
with the models they judge. Knows nothing of candidates or of what is reported.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import re
import sys
import types
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .statistics import edit_distance

Samples = NDArray[np.float32]
Vector = NDArray[np.float64]
RATE = 16000  # Hz, what all three hear
WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")


def is_there(module: str) -> bool:
    """Whether an evaluator is installed; loads nothing."""
    return module in sys.modules or importlib.util.find_spec(module) is not None


def need(module: str) -> Any:
    """Import an evaluator; UsageError naming the extra where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the evaluators' own old imports
            return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"the evaluator {module} cannot be imported: {error}", "pip install 'clvp[bench]', or leave its part out"
        ) from None


def at_rate(samples: Samples, rate: int) -> Samples:
    """Samples (n,) at the evaluators' rate."""
    if rate == RATE:
        return samples
    import soxr

    resampled: Samples = soxr.resample(samples, rate, RATE, quality="HQ").astype(np.float32)
    return resampled


class Recogniser:
    """Phoneme error rates by hama: a text's phonemes (G2P) against those a phoneme recogniser hears."""

    def __init__(self) -> None:
        hama = need("hama")
        self._asr, self._g2p = hama.ASRModel(), hama.G2PModel()
        self._said: dict[str, list[str]] = {}
        self._heard: dict[bytes, list[str]] = {}

    def said(self, text: str) -> list[str]:
        """The phonemes of a normalised text; punctuation, which the G2P would spell, is left out."""
        if text not in self._said:
            words = " ".join(WORD.findall(text.lower()))
            found = self._g2p.predict(words).alignments if words else []
            self._said[text] = [a.phoneme for a in found if a.phoneme.strip()]
        return self._said[text]

    def heard(self, samples: Samples, rate: int) -> list[str]:
        """The phonemes that are recognised in a clip (n,)."""
        key = hashlib.sha256(samples.tobytes() + str(rate).encode()).digest()
        if key not in self._heard:
            self._heard[key] = list(self._asr(at_rate(samples, rate), RATE).phonemes)
        return self._heard[key]

    def error_rate(self, samples: Samples, rate: int, text: str) -> float:
        """Edits a phoneme of the text: 0 is perfect; above 1 where much is heard that was not to be said."""
        said = self.said(text)
        return edit_distance(said, self.heard(samples, rate)) / max(1, len(said))


class Speakers:
    """Voices as vectors, by resemblyzer."""

    def __init__(self) -> None:
        self._module = need("resemblyzer")
        self._encoder = self._module.VoiceEncoder("cpu", verbose=False)

    def vector(self, samples: Samples, rate: int) -> Vector:
        """A unit vector (256,) of who speaks in a clip (n,); silences are cut out first."""
        heard = at_rate(samples, rate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spoken = self._module.preprocess_wav(heard)
            vector = self._encoder.embed_utterance(spoken if len(spoken) else heard)
        return np.asarray(vector, dtype=np.float64)


class Opinion:
    """Mean opinion scores, 1 to 5, by DistillMOS."""

    def __init__(self) -> None:
        try:
            importlib.import_module("torchaudio")
        except (ImportError, OSError):
            # It is imported there for reading files, which is not used here, and is not made for every torch.
            sys.modules["torchaudio"] = types.ModuleType("torchaudio")
        with contextlib.redirect_stdout(sys.stderr):  # it tells of its weights where records go
            self._model = need("distillmos").ConvTransformerSQAModel().eval()

    def score(self, samples: Samples, rate: int) -> float:
        """What listeners might say of a clip (n,)."""
        import torch

        with torch.inference_mode():
            return float(self._model(torch.from_numpy(at_rate(samples, rate))[None])[0, 0])
