"""Log-mels against the published values and librosa's definitions, and the way back to sound."""

from __future__ import annotations

import subprocess
import sys

import librosa
import numpy as np
import pytest
from conftest import shared_data

from clvp_cli.audio.mel import (
    BLOCK_FRAMES,
    MelConfig,
    invert_log_mel,
    log_mel,
    mel_filters,
    published_mel_norms,
    undo_log_mel,
)
from clvp_cli.audio.voice import bundled_voice, fit_window
from clvp_cli.audio.waveform import Samples, read_audio
from clvp_cli.errors import AudioError

PUBLISHED_ROW = """
    .9271 1.1405 1.4419 1.2470 1.2438 1.1787 1.0595 1.0570 1.1070 1.2205 1.2376 1.2997 1.1131 1.0843 1.0459
    1.1858 1.2323 1.3582 1.3401 1.3770 1.4173 1.3381 1.2291 1.0854 1.2116 1.1873 1.2178 1.2137 1.3001 1.4274
"""


@pytest.fixture(scope="module")
def voice() -> Samples:
    return read_audio(bundled_voice()).samples


def noise(n: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).normal(0, 0.1, n).astype(np.float32)


def test_published_values() -> None:
    """The published example's first 30 values come out within their printed precision."""
    wave = read_audio(shared_data() / "1272-128104-0000.wav")
    mel = log_mel(fit_window(wave.samples, 132300), mel_norms=published_mel_norms())
    assert mel.shape == (80, 517) and mel.dtype == np.float32
    np.testing.assert_allclose(mel[0, :30], np.array(PUBLISHED_ROW.split(), dtype=float), atol=1e-4)


@pytest.mark.parametrize(("rate", "n_fft", "bands"), [(22050, 1024, 80), (24000, 2048, 100), (16000, 512, 40)])
def test_filters_equal_librosa(rate: int, n_fft: int, bands: int) -> None:
    """The filters are librosa's HTK filters with Slaney's norm, to float32's precision."""
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands, fmin=0, fmax=8000, htk=True, norm="slaney")
    ours = mel_filters(MelConfig(feature_size=bands, sampling_rate=rate, n_fft=n_fft))
    np.testing.assert_allclose(ours, expected, atol=1e-7)


def test_log_mel_equals_librosa(voice: Samples) -> None:
    """The whole log-mel agrees with librosa's transform and filters, float32 rounding apart."""
    power = np.abs(librosa.stft(voice.astype(np.float64), n_fft=1024, hop_length=256, pad_mode="reflect")) ** 2
    filters = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmax=8000, htk=True, dtype=np.float64)
    norms = published_mel_norms()
    expected = np.log(np.maximum(filters @ power, 1e-5)) / norms[:, None]
    np.testing.assert_allclose(log_mel(voice, mel_norms=norms), expected, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 255, 256, 512, 513, 1024, 5000, 132300])
def test_frames(n: int) -> None:
    """n samples give 1 + n // 256 frames, as numpy's repeated reflection pads them, however few they are."""
    samples = noise(n)
    padded = np.pad(samples.astype(np.float64), 512, mode="reflect")
    frames = np.stack([padded[i * 256 : i * 256 + 1024] for i in range(1 + n // 256)])
    window = np.hanning(1025)[:-1]
    expected = np.log(np.maximum(mel_filters() @ (np.abs(np.fft.rfft(frames * window)) ** 2).T, 1e-5))
    mel = log_mel(samples, mel_norms=None)
    assert mel.shape == (80, 1 + n // 256) == (80, MelConfig().frames(n))
    np.testing.assert_allclose(mel, expected, atol=1e-4)


def test_blocks_leave_no_seam() -> None:
    """Frames on either side of a block's border equal those of a signal that starts elsewhere."""
    samples = noise(256 * (BLOCK_FRAMES + 40))
    skip = BLOCK_FRAMES - 20
    whole, part = log_mel(samples, mel_norms=None), log_mel(samples[skip * 256 :], mel_norms=None)
    np.testing.assert_allclose(whole[:, skip + 2 :], part[:, 2:], atol=1e-6)


def test_norms() -> None:
    """The published norms are 80 divisors that cannot be overwritten; a table of the wrong size is refused."""
    norms = published_mel_norms()
    assert norms.shape == (80,) and norms.dtype == np.float32
    assert float(norms.min()) == pytest.approx(-9.4822, abs=1e-4) and float(norms.max()) == pytest.approx(
        -1.6036, abs=1e-4
    )
    with pytest.raises(ValueError, match="read-only"):
        norms[0] = 1
    for bad in (norms[:79], np.zeros(80), np.full(80, np.nan), ["a"] * 80, [[1.0], [1.0, 2.0]]):
        with pytest.raises(AudioError, match="mel norms"):
            log_mel(noise(1000), mel_norms=bad)


def test_log_mel_refuses() -> None:
    """Two channels and no samples are errors."""
    for bad in (np.zeros((2, 100)), np.zeros(0)):
        with pytest.raises(AudioError, match="one channel"):
            log_mel(bad, mel_norms=None)
    with pytest.raises(AudioError, match="positive"):
        MelConfig(hop_length=0)


def test_undo_log_mel(voice: Samples) -> None:
    """The recovered magnitudes have the log-mel they were made from, and nothing above 8 kHz."""
    mel = log_mel(voice, mel_norms=published_mel_norms())
    magnitude = undo_log_mel(mel, mel_norms=published_mel_norms())
    plain = log_mel(voice, mel_norms=None)
    again = np.log(np.maximum(mel_filters() @ (magnitude.T.astype(np.float64) ** 2), 1e-5))
    assert np.abs(again - plain).mean() < 0.05
    assert not magnitude[:, 373:].any()


def test_griffin_lim_round_trip(voice: Samples) -> None:
    """Sound made from a log-mel has nearly that log-mel: closer than a tenth of its spread, twice the same."""
    norms = published_mel_norms()
    mel = log_mel(voice, mel_norms=norms)
    sound = invert_log_mel(mel, mel_norms=norms, iterations=30)
    assert sound.shape == ((mel.shape[1] - 1) * 256,) and sound.dtype == np.float32
    before, after = log_mel(voice, mel_norms=None), log_mel(sound, mel_norms=None)
    assert np.abs(after - before).mean() < 0.1 * before.std()
    np.testing.assert_array_equal(sound, invert_log_mel(mel, mel_norms=norms, iterations=30))
    assert np.abs(sound - invert_log_mel(mel, mel_norms=norms, iterations=30, seed=1)).max() > 1e-3


def test_invert_edges() -> None:
    """One frame, silence and absurdly loud mels give finite sound; wrong shapes, NaN and odd hops are errors."""
    for mel in (np.zeros((80, 1)), np.full((80, 4), np.log(1e-5)), np.full((80, 3), 1e6)):
        sound = invert_log_mel(mel, mel_norms=None, iterations=3)
        assert sound.size == max(mel.shape[1] - 1, 1) * 256 and np.isfinite(sound).all()
    for bad in (np.zeros((79, 3)), np.zeros((80, 0)), np.zeros(80), np.full((80, 2), np.nan)):
        with pytest.raises(AudioError, match="log-mel of shape"):
            invert_log_mel(bad, mel_norms=None)
    with pytest.raises(AudioError, match="multiple of hop_length"):
        invert_log_mel(np.zeros((80, 3)), mel_norms=None, config=MelConfig(hop_length=300))


def test_light() -> None:
    """Reading, analysing and resynthesising sound loads neither torch nor librosa nor scipy."""
    program = (
        "import sys; from clvp_cli.audio.voice import *; from clvp_cli.audio.mel import *;"
        "from clvp_cli.audio.features import ClvpFeatureExtractor as X;"
        "mel = voice_mels([bundled_voice()], mel_norms=None);"
        "invert_log_mel(mel[0, :, :20], mel_norms=None, iterations=1); X()([0.1] * 99, sampling_rate=22050);"
        "print(sorted({'torch', 'librosa', 'scipy', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
