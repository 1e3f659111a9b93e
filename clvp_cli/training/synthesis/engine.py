"""What every engine shares: the record of a spoken text, optional packages with a clear error, one-thread sessions.

An engine is a callable (text, voice, rng) → Speech; `voice` is a mapping whose keys the engine's module names.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clvp_cli.errors import InputError


@dataclass(frozen=True)
class Speech:
    """A mono waveform, (samples,) float32 in [-1, 1], and the rate in Hz that it is to be played at."""

    samples: NDArray[np.float32]
    rate: float


class Engine(Protocol):
    """Anything that speaks."""

    def __call__(self, text: str, voice: dict[str, Any], rng: np.random.Generator) -> Speech: ...


def need(module: str, package: str) -> Any:
    """Import an optional module, or raise InputError naming the package that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        hint = f"install {package} into the environment that makes the data: make mini-data"
        raise InputError(f"cannot import {module}: {error}", hint) from error


def session(path: Path) -> Any:
    """An onnxruntime session on one thread: several processes can then share a machine."""
    ort = need("onnxruntime", "onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def finish(speech: Speech, rate: int, trim_db: float = 45.0, margin: float = 0.08) -> NDArray[np.float32]:
    """Speech → samples at `rate`, silence at both ends cut down to `margin` seconds, peak at most 0.98."""
    samples = need("soxr", "soxr").resample(speech.samples, speech.rate, rate)
    peak = float(np.abs(samples).max(initial=0.0))
    loud = np.flatnonzero(np.abs(samples) > peak * 10 ** (-trim_db / 20))
    pad = int(margin * rate)
    samples = samples[max(0, loud[0] - pad) : loud[-1] + pad] if len(loud) else samples[:0]
    return np.asarray(samples * min(1.0, 0.98 / max(peak, 1e-9)), np.float32)
