"""Saved voices: conditioning vectors in an .npz, taken wherever a reference clip is. Numpy only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from .arrays import read_npz, write_npz

MAX_VALUE = 1e6  # of a conditioning vector: models make some tens, and sums of clips must stay numbers


def is_saved_voice(source: object) -> TypeGuard[str | Path]:
    """Whether a reference is a saved voice, by its name."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() == ".npz"


def write_voice(path: str | Path, vectors: NDArray[np.float32], meta: Mapping[str, Any]) -> None:
    """Write conditioning vectors (windows, D) and what they were made of."""
    write_npz(path, {"vectors": vectors.astype(np.float32), "meta": np.array(json.dumps(dict(meta)))})


def read_voice(path: str | Path, width: int) -> NDArray[np.float32]:
    """Read conditioning vectors (windows, D); AudioError where the file holds none of that width."""
    vectors = read_npz(path).get("vectors")
    if vectors is None:
        raise AudioError(
            f"{path}: no voice in it (no array called vectors)", "make one with: clvp voice CLIP.wav -o VOICE.npz"
        )
    if vectors.ndim != 2 or vectors.shape[1] != width or not len(vectors) or vectors.dtype.kind != "f":
        raise AudioError(
            f"{path}: vectors {vectors.shape} {vectors.dtype}, the model wants (…, {width})", "remake it with -m"
        )
    if not np.isfinite(vectors).all():
        raise AudioError(f"{path}: the voice holds values that are not finite")
    if (largest := float(np.abs(vectors).max())) > MAX_VALUE:
        raise AudioError(f"{path}: the voice holds {largest:g}, no voice goes beyond {MAX_VALUE:g}", "make it again")
    return np.asarray(vectors, dtype=np.float32)
