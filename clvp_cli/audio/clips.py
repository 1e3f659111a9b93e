"""Audio as callers hand it over in memory → mono float32 clips.

Owns telling one clip from several, scaling integers and refusing what is not mono speech: the published extractor
takes stereo for two clips and int16 for floats. It knows nothing of features or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clvp_cli.audio.waveform import Samples, check_samples
from clvp_cli.errors import AudioError


def as_clips(raw_speech: Any) -> list[Samples]:
    """One clip or several, in any of the published forms → a list of (n,) float32 arrays.

    Raises:
        AudioError: nothing, stereo, ragged or nested too deeply, not numbers, empty, NaN.
    """
    if isinstance(raw_speech, Sequence) and not isinstance(raw_speech, (str, bytes)):
        if not raw_speech:
            raise AudioError("no audio: an empty list", "give at least one clip")
        if np.ndim(_numbers(raw_speech[0], "clip 0")):
            return [_as_clip(_numbers(clip, f"clip {i}"), f"clip {i}") for i, clip in enumerate(raw_speech)]
    values = _numbers(raw_speech, "audio")
    if values.ndim != 2:
        return [_as_clip(values, "audio")]
    if values.shape[0] == 2 or (values.shape[1] <= 8 and values.shape[1] < values.shape[0]):
        raise AudioError(
            f"audio of shape {values.shape} looks like stereo: one channel is needed",
            "average the channels; for a batch of clips give a list of one-dimensional arrays",
        )
    return [_as_clip(clip, f"clip {i}") for i, clip in enumerate(values)]


def _numbers(values: Any, where: str) -> npt.NDArray[Any]:
    """A real-valued array of whatever was given; tensors come to the CPU."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise AudioError(f"{where}: not an array of samples ({error})") from error
    if array.dtype.kind not in "fiu":
        raise AudioError(
            f"{where}: samples of type {array.dtype} are not numbers", "read the file with read_audio(path)"
        )
    return array


def _as_clip(values: npt.NDArray[Any], where: str) -> Samples:
    """Check one clip; scale 8-, 16- and 32-bit integers to ±1."""
    if values.ndim != 1 or not values.size:
        raise AudioError(f"{where}: of shape {values.shape}: one channel with at least one sample is needed")
    if values.dtype == np.uint8:
        values = (values.astype(np.float32) - 128.0) / 128.0
    elif values.dtype in (np.int8, np.int16, np.int32):
        values = (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)
    return check_samples(values.astype(np.float64, copy=False), where)
