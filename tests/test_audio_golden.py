"""Log-mels against the golden ones (tests/golden/make_audio.py)."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from golden_files import arrays

from clvp_cli.audio.features import ClvpFeatureExtractor
from clvp_cli.audio.mel import log_mel, published_mel_norms

NAMES = ["tone", "noise", "chirp", "silence", "six", "long"]


def cut(mel: np.ndarray) -> np.ndarray:
    """The frames that the golden file keeps."""
    return mel[:, arrays("audio")["kept"]] if mel.shape[1] > 500 else mel


@pytest.mark.parametrize("name", NAMES)
def test_features(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Six seconds of features, and their mask, are those of transformers' extractor."""
    caplog.set_level(logging.ERROR)
    golden = arrays("audio")
    made = ClvpFeatureExtractor(mel_norms=published_mel_norms())(
        golden[f"wave.{name}"], sampling_rate=22050, return_tensors="np"
    )
    np.testing.assert_allclose(cut(made["input_features"][0]), golden[f"hf.{name}"], atol=1e-4)
    assert made["attention_mask"].sum() == golden[f"hf_mask.{name}"]


def test_features_without_norms() -> None:
    """Without norms the features are transformers' plain log-mel."""
    golden = arrays("audio")
    made = ClvpFeatureExtractor()(golden["wave.tone"], sampling_rate=22050, return_tensors="np")
    np.testing.assert_allclose(cut(made["input_features"][0]), golden["hf_plain.tone"], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_unpadded_mel(name: str) -> None:
    """A whole waveform's log-mel is that of Tortoise's TorchMelSpectrogram."""
    golden = arrays("audio")
    made = log_mel(golden[f"wave.{name}"], mel_norms=published_mel_norms())
    np.testing.assert_allclose(cut(made), golden[f"tortoise.{name}"], atol=1e-4)


@pytest.mark.parametrize("name", ["tone", "six"])
def test_conditioning_mel(name: str) -> None:
    """The six-second window of a clip has the mel that Tortoise conditions on."""
    golden = arrays("audio")
    wave = golden[f"wave.{name}"]
    made = log_mel(np.pad(wave, (0, 132300 - len(wave))), mel_norms=published_mel_norms())
    np.testing.assert_allclose(cut(made), golden[f"format.{name}"], atol=1e-4)
