"""A person's voice as the model hears it: reference clips → conditioning windows → log-mels.

Owns how clips of any length become windows of one length. It knows nothing of models or of how their vectors are
averaged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from clvp_cli.audio.mel import PUBLISHED, MelConfig, log_mel
from clvp_cli.audio.waveform import MAX_SECONDS, Samples, Source, Waveform, is_silent, read_audio
from clvp_cli.errors import AudioError, UsageError

log = logging.getLogger(__name__)

WindowPolicy = Literal["all", "first"]
REMAINDER_SECONDS = 1.0  # a shorter rest after whole windows is mostly padding and would count as much as a window


def bundled_voice() -> bytes:
    """The reference voice that ships with the package, a FLAC file's bytes (origin: assets/ORIGINS.md)."""
    return resources.files("clvp_cli").joinpath("assets/voice.flac").read_bytes()


def fit_window(samples: Samples, length: int) -> Samples:
    """Cut to `length` samples, or pad zeros on the right: (n,) → (length,)."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def voice_windows(waveform: Waveform, seconds: float = 6.0, windows: WindowPolicy = "all") -> list[Samples]:
    """Cut a clip into conditioning windows of `seconds`.

    Args:
        windows: "all" takes consecutive windows over the whole clip, the last one zero-padded; a rest of less than
            1 s after a whole window is left out, and so is a window of pure silence. "first" takes the first window
            alone, as the published feature extractor does, and logs what was cut.

    Returns:
        At least one array of seconds · sample_rate samples (132300 by default).

    Raises:
        AudioError: the clip is empty, or silent throughout what is taken.
        UsageError: no such policy, or a window that has no length.
    """
    length = round(seconds * waveform.sample_rate)
    if length < 1:
        raise UsageError(f"a voice window of {seconds:g} s", "give a positive number of seconds")
    if windows not in ("all", "first"):
        raise UsageError(f"no voice window policy {windows!r}", 'use "all" or "first"')
    total = len(waveform.samples)
    if windows == "first":
        starts = [0]
        if total > length:
            log.warning("%s: %.1f s, only the first %g s are used", waveform.source, waveform.seconds, seconds)
    else:
        starts = list(range(0, max(total, 1), length))
        if len(starts) > 1 and total - starts[-1] < min(length, round(REMAINDER_SECONDS * waveform.sample_rate)):
            starts.pop()
    pieces = [waveform.samples[start : start + length] for start in starts]
    spoken = [fit_window(piece, length) for piece in pieces if piece.size and not is_silent(piece)]
    if not spoken:
        raise AudioError(f"{waveform.source}: only silence in the voice window", "give a clip in which someone speaks")
    return spoken


def voice_mels(
    clips: Sequence[Source | Waveform],
    *,
    mel_norms: npt.ArrayLike | None,
    windows: WindowPolicy = "all",
    config: MelConfig = PUBLISHED,
    max_seconds: float | None = MAX_SECONDS,
) -> Samples:
    """Log-mels of every conditioning window of every clip, in order.

    Args:
        clips: at least one; anything `read_audio` takes, or waveforms already read.
        mel_norms: `published_mel_norms()`, or the norms that came with the model.
        windows: see `voice_windows`.

    Returns:
        (V, 80, 517) float32 by default.

    Raises:
        AudioError: a clip that cannot be read, is silent or at another rate; no clip at all.
    """
    if isinstance(clips, (str, Path, bytes)) or not len(clips):
        raise AudioError("no list of reference clips", "give at least one clip of a speaking voice, in a list")
    mels = []
    for clip in clips:
        if not isinstance(clip, Waveform):
            clip = read_audio(clip, sample_rate=config.sampling_rate, max_seconds=max_seconds, require_sound=True)
        elif clip.sample_rate != config.sampling_rate:
            raise AudioError(f"{clip.source}: at {clip.sample_rate} Hz, the model hears {config.sampling_rate} Hz")
        for window in voice_windows(clip, config.default_audio_length, windows):
            mels.append(log_mel(window, mel_norms=mel_norms, config=config))
    return np.stack(mels)
