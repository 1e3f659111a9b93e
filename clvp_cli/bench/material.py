"""What the evaluation is made from: clips of a manifest that nothing was trained on, and what is computed of them once.

Owns reading the manifest and the caches. Only sets under dev/ are read: they are for judging.
"""

from __future__ import annotations

import logging
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..audio.waveform import Waveform, read_audio, write_wav
from ..errors import InputError
from ..io.streams import read_text_lines
from ..pipeline import Clvp
from ..records import Candidate
from .evaluators import Recogniser, Speakers

Samples = NDArray[np.float32]
MANIFEST = "manifest.tsv"
JUDGING = "dev/"
COLUMNS = ("set", "file", "speaker", "seconds", "text")

log = logging.getLogger("clvp")


@dataclass(frozen=True)
class Clip:
    """Speech of someone, and what is said in it."""

    path: Path
    set: str
    speaker: str
    seconds: float
    text: str


def read_clips(directory: Path, limit: int = 0, seed: int = 0) -> list[Clip]:
    """The clips of a directory's manifest.tsv that are for judging, at most `limit` of each set, drawn by `seed`.

    Raises:
        InputError: no manifest, a column of it missing, a row too short, a clip that is not there, or none for judging.
    """
    manifest = directory / MANIFEST
    lines = list(read_text_lines(manifest))
    header = lines[0].rstrip("\r").split("\t") if lines else []
    lacking = [name for name in COLUMNS if name not in header]
    if lacking:
        raise InputError(
            f"{manifest}: no column {lacking[0]!r}", f"its columns are {', '.join(COLUMNS)}, tab-separated"
        )
    found: dict[str, list[Clip]] = {}
    for number, line in enumerate(lines[1:], start=2):
        row = dict(zip(header, line.rstrip("\r").split("\t"), strict=False))
        if row.get("set", "").startswith(JUDGING):
            clip = _clip(directory, row, f"{manifest}: line {number}")
            found.setdefault(clip.set, []).append(clip)
    if not found:
        raise InputError(f"{manifest}: no clip for judging", f"its set begins with {JUDGING}")
    return [clip for clips in found.values() for clip in drawn(clips, limit, seed)]


def _clip(directory: Path, row: dict[str, str], where: str) -> Clip:
    try:
        clip = Clip(directory / row["file"], row["set"], row["speaker"], float(row["seconds"]), row["text"].strip())
    except (KeyError, ValueError):
        raise InputError(f"{where}: not {len(COLUMNS)} fields with a number of seconds") from None
    if not clip.path.is_file():
        raise InputError(f"{where}: {clip.path}: no such file", "the manifest's files lie beside it")
    return clip


def drawn(clips: Sequence[Clip], limit: int, seed: int) -> list[Clip]:
    """At most `limit` clips (0: all), the same for a seed, in their order."""
    if not limit or limit >= len(clips):
        return list(clips)
    places = np.random.default_rng(seed).permutation(len(clips))[:limit]
    return [clips[place] for place in sorted(places.tolist())]


class Material:
    """A model, the clips it is judged on, and what several parts of the evaluation need of both."""

    def __init__(self, clvp: Clvp, clips: Sequence[Clip], seed: int) -> None:
        self.clvp, self.clips, self.seed = clvp, list(clips), seed
        self._encoded: dict[Path, Candidate] = {}
        self._sound: dict[Path, Waveform] = {}

    @property
    def sets(self) -> dict[str, list[Clip]]:
        """The clips by set, in the manifest's order."""
        found: dict[str, list[Clip]] = {}
        for clip in self.clips:
            found.setdefault(clip.set, []).append(clip)
        return found

    def rng(self, *what: str | int) -> np.random.Generator:
        """A stream of its own for each purpose, so that leaving one part out changes no other."""
        return np.random.default_rng([self.seed, zlib.crc32(repr(what).encode())])

    def sound(self, path: Path) -> Waveform:
        """A clip's samples, read once."""
        if path not in self._sound:
            self._sound[path] = read_audio(path)
        return self._sound[path]

    def candidate(self, clip: Clip) -> Candidate:
        """A clip's codes, as `clvp encode` makes them, once."""
        if clip.path not in self._encoded:
            self._encoded[clip.path] = self.clvp.encode(clip.path)
        return self._encoded[clip.path]

    def encode(self, samples: Samples, rate: int) -> Candidate:
        """Samples (n,) → codes, by way of a 16-bit WAV as any candidate from outside would come."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "clip.wav"
            write_wav(path, samples, rate)
            return self.clvp.encode(path)

    def reference(self, clip: Clip, *what: str | int) -> Clip:
        """Another clip of the same speaker to be the voice, 3 to 12 s long where there is one; else the clip itself."""
        others = [c for c in self.clips if (c.set, c.speaker) == (clip.set, clip.speaker) and c != clip]
        fitting = [c for c in others if 3 <= c.seconds <= 12] or others or [clip]
        return fitting[int(self.rng("reference", clip.path.name, *what).integers(len(fitting)))]

    def normal(self, text: str) -> str:
        """A text as it is spoken: numbers and abbreviations as words."""
        return self.clvp.core.tokenizer.normalize(text)

    @cached_property
    def recogniser(self) -> Recogniser:
        """Phoneme error rates; UsageError where its package is missing."""
        return Recogniser()

    @cached_property
    def speakers(self) -> Speakers:
        """Voice vectors; UsageError where its package is missing."""
        return Speakers()

    def error_rate(self, samples: Samples, rate: int, text: str) -> float:
        """Phoneme error rate of what is heard against a text."""
        return self.recogniser.error_rate(samples, rate, self.normal(text))
