"""How well a model picks, on clips with known texts: retrieval and damage, each with its number and an interval.

Owns the questions and the counting: which of 16 clips says this text; is the intact clip above its damaged copy. The
model's own codec turns the clips into codes. Knows nothing of commands.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..audio.mel import log_mel
from ..audio.waveform import SAMPLE_RATE, read_audio
from ..errors import InputError
from ..records import Candidate

if TYPE_CHECKING:
    from ..core import Core

Samples = NDArray[np.float32]
Damage = Callable[[Samples, np.random.Generator], Samples]
SHORTEST = 1.5  # seconds of a clip that is damaged


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip to judge by: its samples at 22 050 Hz, its text, and the set it belongs to."""

    samples: Samples
    text: str
    group: str


def read_clips(manifest: Path, wanted: str = "") -> list[Clip]:
    """Clips of a TSV manifest with columns file, text and set, whose set begins with `wanted`; paths relative to it.

    Raises:
        InputError: no such file, columns missing, or no clip left.
    """
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file, delimiter="\t") if (row.get("set") or "").startswith(wanted)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{manifest}: not readable: {error}", "a TSV with columns set, file and text is needed"
        ) from None
    if not rows or not {"file", "text"} <= rows[0].keys():
        raise InputError(f"{manifest}: no clips of {wanted or 'any set'}", "columns set, file and text are needed")
    return [Clip(read_audio(manifest.parent / r["file"]).samples, r["text"], str(r.get("set") or "all")) for r in rows]


def candidate_of(core: Core, samples: Samples) -> Candidate:
    """A clip as a candidate that stopped by itself."""
    import torch

    with torch.inference_mode():
        mel = torch.from_numpy(log_mel(samples, mel_norms=core.mel_norms))
        codes = core.codec.encode(mel[None].to(core.device))[0].cpu().numpy()
    return Candidate(index=0, codes=codes, stopped=True)


def judged(core: Core, text: str, candidates: Sequence[Candidate]) -> dict[str, NDArray[np.float64]]:
    """What each signal says of candidates, and `ranking`: what the model orders by."""
    from ..signals import judge

    values = judge(core.signals, core.reader, core.tokenizer.encode_for_speech(text), candidates)
    ranking = np.sum([weight * values[name] for name, weight in core.rank_weights.items()], axis=0)
    return {**values, "ranking": ranking}


def retrieval(
    core: Core, clips: Sequence[Clip], *, among: int = 16, draws: int = 3, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """How often the right clip is first among `among` for its text: others at random, and the nearest in length.

    Yields a record a set, kind of others and signal: {"bench", "set", "others", "signal", "right", "n", "low", "high"}.
    """
    rng = np.random.default_rng(seed)
    for group in dict.fromkeys(clip.group for clip in clips):
        members = [clip for clip in clips if clip.group == group]
        candidates = [candidate_of(core, clip.samples) for clip in members]
        lengths = np.array([candidate.length for candidate in candidates])
        won: dict[tuple[str, str], list[bool]] = {}
        for place, clip in enumerate(members):
            different = np.array([i for i, other in enumerate(members) if other.text != clip.text])
            near = different[np.argsort(abs(lengths[different] - lengths[place]), kind="stable")]
            sets = {"random": [rng.permutation(different)[: among - 1] for _ in range(draws)]}
            sets["length-matched"] = [near[: among - 1]]
            values = judged(core, clip.text, candidates)
            for kind, rivals in sets.items():
                for others in rivals:
                    for signal, value in values.items():
                        won.setdefault((kind, signal), []).append(bool((value[place] > value[others]).all()))
        for (kind, signal), hits in won.items():
            yield {"bench": f"right of {among}", "set": group, "others": kind, "signal": signal, **share(hits)}


def drop(samples: Samples, rng: np.random.Generator) -> Samples:
    """Half a second is gone."""
    start = int(rng.integers(0, len(samples) - SAMPLE_RATE // 2))
    return np.concatenate([samples[:start], samples[start + SAMPLE_RATE // 2 :]])


def repeat(samples: Samples, rng: np.random.Generator) -> Samples:
    """0.6 s come twice."""
    span = int(0.6 * SAMPLE_RATE)
    start = int(rng.integers(0, len(samples) - span))
    return np.concatenate([samples[: start + span], samples[start:]])


def truncate(samples: Samples, rng: np.random.Generator) -> Samples:
    """The last quarter is gone."""
    return samples[: int(0.75 * len(samples))]


DAMAGES: Mapping[str, Damage] = {"drop 0.5 s": drop, "repeat 0.6 s": repeat, "truncate 25 %": truncate}


def damage_detection(core: Core, clips: Sequence[Clip], *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """How often the intact clip is above its damaged copy, and above a clip that says another text."""
    rng = np.random.default_rng(seed)
    long = [clip for clip in clips if len(clip.samples) >= SHORTEST * SAMPLE_RATE]
    won: dict[tuple[str, str, str], list[bool]] = {}
    for clip in long:
        others = [other for other in long if other.text != clip.text and other.group == clip.group]
        rivals = {kind: damage(clip.samples, rng) for kind, damage in DAMAGES.items()}
        if others:
            rivals["another text's clip"] = others[int(rng.integers(len(others)))].samples
        candidates = [candidate_of(core, samples) for samples in (clip.samples, *rivals.values())]
        for signal, value in judged(core, clip.text, candidates).items():
            for kind, damaged in zip(rivals, value[1:], strict=True):
                won.setdefault((clip.group, kind, signal), []).append(bool(value[0] > damaged))
    for (group, kind, signal), hits in won.items():
        yield {"bench": "intact above", "set": group, "others": kind, "signal": signal, **share(hits)}


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """Share of hits, their number, and Wilson's 95 % interval (Wilson 1927)."""
    n, p, z = len(hits), float(np.mean(hits)), 1.96
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = (middle - spread) / scale, (middle + spread) / scale
    return {"right": round(p, 4), "n": n, "low": round(low, 4), "high": round(high, 4)}
