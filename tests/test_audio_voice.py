"""Reference clips become conditioning windows."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest

from clvp_cli.audio.mel import log_mel, published_mel_norms
from clvp_cli.audio.voice import bundled_voice, fit_window, voice_mels, voice_windows
from clvp_cli.audio.waveform import Waveform, read_audio, write_wav
from clvp_cli.errors import AudioError, UsageError

SIX = 132300


def clip(seconds: float, rate: int = 22050, seed: int = 0) -> Waveform:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).astype(np.float32)
    return Waveform(samples, rate, "clip", rate, 1)


def test_fit_window() -> None:
    """A window cuts what is too long and pads zeros on the right."""
    np.testing.assert_array_equal(fit_window(np.arange(5, dtype=np.float32), 3), [0, 1, 2])
    np.testing.assert_array_equal(fit_window(np.arange(2, dtype=np.float32), 4), [0, 1, 0, 0])


@pytest.mark.parametrize(
    ("seconds", "count"), [(0.1, 1), (0.9, 1), (5, 1), (6, 1), (6.9, 1), (7.1, 2), (12, 2), (12.5, 2), (13, 3)]
)
def test_all_windows(seconds: float, count: int) -> None:
    """Windows follow one another over the whole clip; a rest of under a second after a whole window is left out."""
    wave = clip(seconds)
    windows = voice_windows(wave)
    assert [len(window) for window in windows] == [SIX] * count
    joined = np.concatenate(windows)
    n = min(len(joined), len(wave.samples))
    np.testing.assert_array_equal(joined[:n], wave.samples[:n])
    assert not joined[n:].any()


def test_first_window(caplog: pytest.LogCaptureFixture) -> None:
    """ "first" takes the first six seconds and says what it cut, once there is something to cut."""
    with caplog.at_level(logging.WARNING):
        assert len(voice_windows(clip(6), windows="first")) == 1
        assert not caplog.records
        (window,) = voice_windows(clip(13), windows="first")
    np.testing.assert_array_equal(window, clip(13).samples[:SIX])
    assert "only the first 6 s" in caplog.text


def test_silent_windows() -> None:
    """A silent stretch makes no window; silence throughout what is taken is an error."""
    wave = clip(18)
    wave.samples[SIX : 2 * SIX] = 0
    assert len(voice_windows(wave)) == 2
    wave.samples[:SIX] = 0
    with pytest.raises(AudioError, match="only silence"):
        voice_windows(wave, windows="first")
    wave.samples[:] = 0
    with pytest.raises(AudioError, match="only silence"):
        voice_windows(wave)


def test_other_lengths_and_refusals() -> None:
    """Windows of another length work; none at all, or an unknown policy, is a usage error."""
    assert [len(w) for w in voice_windows(clip(1.0), 0.5)] == [11025, 11025]
    with pytest.raises(UsageError, match="voice window of"):
        voice_windows(clip(1.0), 0.0)
    with pytest.raises(UsageError, match="policy"):
        voice_windows(clip(1.0), windows="some")  # type: ignore[arg-type]


def test_voice_mels() -> None:
    """Files, bytes and waveforms mix; every window of every clip is one (80, 517) log-mel, in order."""
    norms = published_mel_norms()
    file = io.BytesIO()
    write_wav(file, clip(7.5).samples)
    mels = voice_mels([bundled_voice(), io.BytesIO(file.getvalue()), clip(2)], mel_norms=norms)
    assert mels.shape == (4, 80, 517) and mels.dtype == np.float32
    first = fit_window(read_audio(bundled_voice()).samples, SIX)
    np.testing.assert_array_equal(mels[0], log_mel(first, mel_norms=norms))


def test_voice_mels_refuses() -> None:
    """No clip, a bare path, a silent clip and a clip at another rate are errors."""
    for bad in ([], "voice.wav"):
        with pytest.raises(AudioError, match="reference clips"):
            voice_mels(bad, mel_norms=None)
    with pytest.raises(AudioError, match="16000 Hz"):
        voice_mels([clip(1, 16000)], mel_norms=None)
    file = io.BytesIO()
    write_wav(file, np.zeros(9999))
    with pytest.raises(AudioError, match="only silence"):
        voice_mels([file.getvalue()], mel_norms=None)
