"""The pipeline refuses what means nothing: numbers that are none, a preprocessor of another model."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from golden_files import hf_directory
from safetensors.torch import load_file, save_file

from clvp_cli.audio.features import ClvpFeatureExtractor
from clvp_cli.audio.voice import bundled_voice
from clvp_cli.errors import CheckpointError, ConfigError
from clvp_cli.pipeline import Clvp
from clvp_cli.records import Candidate
from clvp_cli.settings import SamplingSettings, Settings

SPOKEN = Settings(device="cpu", sampling=SamplingSettings(n=4, max_codes=3, beams=2))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return hf_directory("hf_partial", tmp_path)


def spoil(directory: Path, name: str) -> None:
    """Make one tensor NaN throughout."""
    state = load_file(directory / "model.safetensors")
    state[name] = state[name] * float("nan")
    save_file(state, directory / "model.safetensors")


def prepared(directory: Path, settings: Settings) -> tuple[Clvp, np.ndarray]:
    clvp = Clvp.load(directory, settings)
    width = clvp.core.config.decoder_config.hidden_size
    clvp.core.__dict__["tokenizer"] = Spelling()
    return clvp, np.ones(width, dtype=np.float32)


class Spelling:
    """The golden model knows fewer ids than the tokenizer gives."""

    def encode_for_speech(self, text: str, limit: int) -> np.ndarray:
        return np.array([3, 4, 5])


@pytest.mark.parametrize("beams", [1, 2])
def test_codes_of_a_decoder_that_computes_nan_are_refused(directory, beams):
    """A decoder whose logits are NaN is an error, not a row of zeros."""
    spoil(directory, "speech_decoder_model.lm_head.bias")
    clvp, voice = prepared(directory, Settings(sampling=SamplingSettings(n=1, max_codes=3, beams=beams)))
    with pytest.raises(CheckpointError, match="NaN"):
        list(clvp.candidates(["Hello."], voice))


def test_scores_that_are_nan_are_refused(directory):
    """A speech encoder that gives NaN is an error, not a score of null."""
    spoil(directory, "speech_encoder_model.projection.weight")
    clvp, _ = prepared(directory, Settings())
    with pytest.raises(CheckpointError, match="clvp is NaN"):
        clvp.score("Hello.", [Candidate(np.array([1, 2, 3]), True, 0)])


def test_a_preprocessor_of_other_mel_bands_is_named(directory, tmp_path):
    """A preprocessor that makes other mel bands than the decoder hears is a configuration error."""
    ClvpFeatureExtractor(feature_size=40).save_pretrained(directory)
    (tmp_path / "voice.flac").write_bytes(bundled_voice())
    with pytest.raises(ConfigError, match="40 mel bands"):
        Clvp.load(directory, Settings()).voice([tmp_path / "voice.flac"])


def test_a_beam_narrower_than_n_is_said(directory, caplog):
    """A beam of 2 asked for 4 candidates finds 2, with a word on it."""
    clvp, voice = prepared(directory, SPOKEN)
    logger = logging.getLogger("clvp")
    logger.addHandler(caplog.handler)
    try:
        assert len(list(clvp.candidates(["Hello."], voice))) == 2
    finally:
        logger.removeHandler(caplog.handler)
    assert "a beam of 2 finds 2 candidates, not 4" in caplog.text
