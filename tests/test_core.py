"""A model's own files decide how it hears and reads; settings and the published defaults fill in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clvp_cli.audio.features import ClvpFeatureExtractor
from clvp_cli.audio.mel import PUBLISHED, published_mel_norms
from clvp_cli.core import Core
from clvp_cli.settings import SamplingSettings, Settings, load_settings
from clvp_cli.text.tokenizer import ClvpTokenizer


def core(directory: Path, **flags: object) -> Core:
    return Core(directory, load_settings(flags=flags).settings)


def test_a_model_without_a_preprocessor_hears_as_published(tmp_path):
    """Without preprocessor_config.json, as beside Tortoise's files, norms, rate and windows are the published ones."""
    ours = core(tmp_path)
    np.testing.assert_array_equal(ours.mel_norms, published_mel_norms())
    assert ours.mel_config == PUBLISHED


def test_a_preprocessor_is_followed_to_the_letter(tmp_path):
    """Rate, hop, window length and norms are those of preprocessor_config.json; null norms leave log-mels plain."""
    given = ClvpFeatureExtractor(sampling_rate=16000, hop_length=128, default_audio_length=4)
    given.save_pretrained(tmp_path)
    ours = core(tmp_path)
    assert ours.mel_norms is None
    assert ours.mel_config == given.config
    assert ours.mel_config.window_samples == 64000


@pytest.mark.parametrize(("seconds", "expected"), [("auto", 4.0), (2.5, 2.5)])
def test_the_window_is_the_models_unless_a_setting_says_otherwise(tmp_path, seconds, expected):
    """voice.seconds is auto by default: the model's default_audio_length; a number goes before it."""
    ClvpFeatureExtractor(default_audio_length=4).save_pretrained(tmp_path)
    assert core(tmp_path, **{"voice.seconds": seconds}).mel_config.default_audio_length == expected


@pytest.mark.parametrize("profile", ["hf", "tortoise"])
def test_the_compatibility_profiles_run_in_float32(profile):
    """What is compared with another system to the code is computed in its precision, whatever the machine offers."""
    assert load_settings([profile]).settings.dtype == "float32"
    assert load_settings([profile], {"dtype": "bfloat16"}).settings.dtype == "bfloat16"


def test_a_model_named_by_its_weights_file_has_the_files_beside_it(tmp_path):
    """-m DIR/model.safetensors reads the tokenizer and the preprocessor of DIR."""
    ClvpFeatureExtractor(mel_norms=np.full(80, 2.0)).save_pretrained(tmp_path)
    ClvpTokenizer().save_pretrained(tmp_path)
    ids = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    ids["h"], ids["j"] = ids["j"], ids["h"]
    (tmp_path / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    weights = tmp_path / "model.safetensors"
    weights.touch()
    ours = Core(weights, Settings())
    assert ours.mel_norms is not None
    assert ours.mel_norms[0] == 2.0
    assert ours.tokenizer.encode("h") == [ids["h"]] == ClvpTokenizer().encode("j")


@pytest.mark.parametrize(
    ("sampling", "dtype", "speaks", "judges"),
    [
        ({}, "auto", "bfloat16", "float32"),
        ({"greedy": True}, "auto", "float32", "float32"),
        ({"beams": 3}, "auto", "float32", "float32"),
        ({}, "bfloat16", "bfloat16", "bfloat16"),
        ({}, "float32", "float32", "float32"),
    ],
)
def test_only_sampling_is_left_to_halves(tiny_model, monkeypatch, sampling, dtype, speaks, judges):
    """Left to us, a large model samples in bfloat16 where that is quick; greedy codes, beams and scores stay exact."""
    from clvp_cli.model import precision

    monkeypatch.setattr(precision, "WORTH_HALVING", 1)
    monkeypatch.setattr(precision, "multiplies_halves", lambda device: True)
    monkeypatch.setattr(precision.native, "is_wide", lambda: False)
    core = Core(tiny_model, Settings(dtype=dtype, sampling=SamplingSettings(**sampling)))
    assert (core.precision.name, core.judging.name) == (speaks, judges)
