"""The published feature extractor's interface: padding, truncation, masks, tensors, configuration, refusals."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clvp_cli.audio.features import BatchFeature, ClvpFeatureExtractor
from clvp_cli.audio.mel import log_mel, published_mel_norms
from clvp_cli.errors import AudioError, ConfigError, OutputError

RATE = 22050
LENGTHS = (8000, 20001, 140000)


def clips() -> list[Any]:
    rng = np.random.default_rng(3)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in LENGTHS]


def extract(audio: Any, **kwargs: Any) -> BatchFeature:
    extractor = ClvpFeatureExtractor(mel_norms=published_mel_norms())
    return extractor(audio, sampling_rate=RATE, **{"return_tensors": "np", **kwargs})


def test_defaults() -> None:
    """Clips are padded or cut to six seconds; the mask marks the audio's samples in int32."""
    features = extract(clips())
    assert features.input_features.shape == (3, 80, 517) and features.input_features.dtype == np.float32
    assert features.attention_mask.shape == (3, 132300) and features.attention_mask.dtype == np.int32
    assert features.attention_mask.sum(1).tolist() == [8000, 20001, 132300]
    expected = log_mel(np.pad(clips()[0], (0, 132300 - 8000)), mel_norms=published_mel_norms())
    np.testing.assert_array_equal(features["input_features"][0], expected)


@pytest.mark.parametrize(
    ("options", "samples", "marked"),
    [
        ({"padding": "longest"}, 132300, [8000, 20001, 132300]),
        ({"padding": True, "pad_to_multiple_of": 1000, "max_length": 30500}, 31000, [8000, 20001, 31000]),
        ({"max_length": 9999}, 9999, [8000, 9999, 9999]),
        ({"max_length": 9999, "pad_to_multiple_of": 128}, 10112, [8000, 10112, 10112]),
        ({"truncation": False, "padding": "longest"}, 140000, [8000, 20001, 140000]),
        ({"padding": "longest", "pad_to_multiple_of": 4096}, 135168, [8000, 20001, 135168]),
    ],
)
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding(options: dict[str, Any], samples: int, marked: list[int], side: str) -> None:
    """Lengths, multiples and truncation combine as in the published class, on either side."""
    extractor = ClvpFeatureExtractor(padding_side=side, padding_value=0.25)
    features = extractor(clips(), sampling_rate=RATE, return_tensors="np", **options)
    assert features.input_features.shape == (3, 80, 1 + samples // 256)
    for clip, mask, mel, count in zip(clips(), features.attention_mask, features.input_features, marked, strict=True):
        assert mask.sum() == count and len(mask) == samples
        assert mask[:count].all() if side == "right" else mask[samples - count :].all()
        sides = (0, samples - count) if side == "right" else (samples - count, 0)
        np.testing.assert_array_equal(mel, log_mel(np.pad(clip[:count], sides, constant_values=0.25), mel_norms=None))


def test_no_padding() -> None:
    """Without padding each clip keeps its length: a list where none is asked to stack, an error where one is."""
    features = extract(clips(), padding=False, truncation=False, return_tensors=None)
    assert [mel.shape[1] for mel in features.input_features] == [1 + n // 256 for n in LENGTHS]
    assert [len(mask) for mask in features.attention_mask] == list(LENGTHS)
    with pytest.raises(AudioError, match="unequal lengths"):
        extract(clips(), padding="do_not_pad")


def test_masks() -> None:
    """The mask can be left out; None means the extractor's own setting."""
    assert "attention_mask" in extract(clips()[0])
    assert "attention_mask" not in extract(clips()[0], return_attention_mask=False)
    assert "attention_mask" not in extract(clips()[0], return_attention_mask=None)
    asking = ClvpFeatureExtractor(return_attention_mask=True)
    assert "attention_mask" in asking(clips()[0], sampling_rate=RATE, return_attention_mask=None)


def test_tensors() -> None:
    """pt gives torch tensors that can be moved and cast, None a list of arrays; other frameworks are refused."""
    features = extract(clips(), return_tensors="pt")
    assert isinstance(features.input_features, torch.Tensor) and features.attention_mask.dtype == torch.int32
    cast = features.to(torch.float16)
    assert cast.input_features.dtype == torch.float16 and cast.attention_mask.dtype == torch.int32
    plain = extract(clips(), return_tensors=None)
    assert isinstance(plain.input_features, list) and isinstance(plain.attention_mask, np.ndarray)
    assert set(plain.data) == {"input_features", "attention_mask"} == set({**plain})
    with pytest.raises(AudioError, match="return_tensors='tf'"):
        extract(clips(), return_tensors="tf")
    with pytest.raises(AttributeError):
        _ = plain.absent


def test_forms_of_one_clip() -> None:
    """An array, a list of floats, a double array, a tensor and a batch of one are the same clip."""
    clip = clips()[0][:3000]
    expected = extract(clip).input_features
    for form in (clip.tolist(), tuple(clip.tolist()), clip.astype(np.float64), torch.tensor(clip), [clip], clip[None]):
        np.testing.assert_allclose(extract(form).input_features, expected, atol=1e-6)
    batch = extract(np.stack([clip] * 3)).input_features
    assert batch.shape[0] == 3 and (batch == expected).all()
    nested = extract([clip.tolist(), clip.tolist()]).input_features
    assert nested.shape[0] == 2 and (nested == expected).all()


@pytest.mark.parametrize(("kind", "scale", "offset"), [("int16", 32768, 0), ("int32", 2**31, 0), ("uint8", 128, 128)])
def test_integers_are_scaled(kind: str, scale: int, offset: int) -> None:
    """Integer samples are scaled to ±1, as the same audio in floats."""
    values = (np.round(clips()[0][:3000].astype(np.float64) * scale) + offset).astype(kind)
    floats = ((values.astype(np.float64) - offset) / scale).astype(np.float32)
    np.testing.assert_array_equal(extract(values).input_features, extract(floats).input_features)


BAD: dict[str, tuple[Any, str]] = {
    "stereo, channels first": (np.zeros((2, 5000), np.float32), "looks like stereo"),
    "stereo, channels last": (np.zeros((5000, 2), np.float32), "looks like stereo"),
    "a stereo clip in a list": ([np.zeros((5000, 2))], "one channel"),
    "three dimensions": (np.zeros((2, 3, 50)), "one channel"),
    "empty array": (np.zeros(0), "at least one sample"),
    "empty list": ([], "empty list"),
    "an empty clip": ([np.zeros(5), np.zeros(0)], "clip 1"),
    "nan": (np.array([0.0, np.nan]), "NaN"),
    "infinite": ([0.1, float("inf")], "NaN or infinite"),
    "unscaled floats": (np.array([0.0, 20000.0]), "within ±1"),
    "unscaled int64": (np.array([0, 20000]), "within ±1"),
    "text": ("voice.wav", "not numbers"),
    "bytes": (b"RIFF", "not numbers"),
    "none": (None, "not numbers"),
    "complex": (np.zeros(9, np.complex64), "not numbers"),
    "ragged": ([[0.1, [0.2, 0.3]]], "not an array"),
    "a number": (0.5, "one channel"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_audio(name: str) -> None:
    """What the published class misreads or crashes on is a clear AudioError."""
    audio, message = BAD[name]
    with pytest.raises(AudioError, match=message):
        extract(audio)


def test_rate(caplog: pytest.LogCaptureFixture) -> None:
    """A wrong rate is a ValueError with a hint; an unstated one is taken to be right, and said."""
    extractor = ClvpFeatureExtractor()
    with pytest.raises(ValueError, match="16000 Hz") as caught:
        extractor(clips()[0], sampling_rate=16000)
    assert isinstance(caught.value, AudioError) and "resample" in (caught.value.hint or "")
    with caplog.at_level(logging.WARNING):
        extractor(clips()[0])
    assert "no sampling_rate" in caplog.text


def test_cut_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Audio beyond the limit is cut with a notice; audio within it is not mentioned."""
    with caplog.at_level(logging.WARNING):
        extract(clips()[:2])
        assert not caplog.records
        extract(clips())
    assert "clip 2: 6.35 s, cut to its first 6.00 s" in caplog.text


@pytest.mark.parametrize("options", [{"padding": "middle"}, {"max_length": 0}, {"pad_to_multiple_of": 0}])
def test_bad_options(options: dict[str, Any]) -> None:
    """Unknown paddings and lengths that are not positive are refused."""
    with pytest.raises(AudioError):
        extract(clips()[0], **options)


def test_configuration_round_trip(tmp_path: Path) -> None:
    """What is saved reads back the same, unknown keys included; keyword arguments override the file."""
    extractor = ClvpFeatureExtractor(mel_norms=published_mel_norms(), hop_length=128, processor_class="ClvpProcessor")
    (path,) = extractor.save_pretrained(tmp_path / "model")
    again = ClvpFeatureExtractor.from_pretrained(tmp_path / "model")
    assert again.to_dict() == extractor.to_dict() == json.loads(Path(path).read_text())
    assert again.to_dict()["processor_class"] == "ClvpProcessor"
    np.testing.assert_array_equal(np.float32(again.mel_norms), published_mel_norms())
    assert ClvpFeatureExtractor.from_pretrained(path, hop_length=64).hop_length == 64
    assert ClvpFeatureExtractor.from_dict(extractor.to_dict()).to_json_string() == extractor.to_json_string()


def test_published_configuration() -> None:
    """The default configuration has the published class's keys and values, and its derived attributes."""
    extractor = ClvpFeatureExtractor()
    assert extractor.to_dict() == {
        "chunk_length": 30,
        "default_audio_length": 6,
        "feature_extractor_type": "ClvpFeatureExtractor",
        "feature_size": 80,
        "hop_length": 256,
        "mel_norms": None,
        "n_fft": 1024,
        "n_samples": 661500,
        "nb_max_frames": 2583,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": 22050,
    }
    assert extractor.mel_filters.shape == (513, 80)


BAD_SETTINGS = [
    *(("sampling_rate", value) for value in ("1e20", "NaN", "0", "-1", "true", '"x"', "[1]", "9" * 4000, "22050.5")),
    *(("n_fft", value) for value in ("1e9", "1000000000", "null")),
    *(("hop_length", value) for value in ("1", "[]")),
    *(("feature_size", value) for value in ("1000000", "{}")),
    *(("default_audio_length", value) for value in ("1e9", "NaN", '"6"', "1e999")),
    *(("chunk_length", value) for value in ('"x"', "-5")),
    *(("padding_value", value) for value in ("NaN", '"%s"' % ("x" * 10**6))),
]


def test_bad_configuration(tmp_path: Path) -> None:
    """A missing, damaged or senseless configuration names the file or the key; an unwritable place too."""
    with pytest.raises(ConfigError, match="no such file"):
        ClvpFeatureExtractor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ConfigError, match="JSON"):
        ClvpFeatureExtractor.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="padding_side"):
        ClvpFeatureExtractor(padding_side="top")
    with pytest.raises(AudioError, match="mel norms"):
        ClvpFeatureExtractor(mel_norms=[1.0, 2.0])
    for name, value in BAD_SETTINGS:
        (tmp_path / "preprocessor_config.json").write_text(f'{{"{name}": {value}}}')
        with pytest.raises(ConfigError, match=rf"preprocessor_config\.json: .*{name} is ") as caught:
            ClvpFeatureExtractor.from_pretrained(tmp_path)
        assert len(caught.value.message) < len(str(tmp_path)) + 250
    (tmp_path / "preprocessor_config.json").write_text('{"self": 1}')
    assert ClvpFeatureExtractor.from_pretrained(tmp_path).extra == {"self": 1}
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        ClvpFeatureExtractor().save_pretrained(tmp_path / "file")
