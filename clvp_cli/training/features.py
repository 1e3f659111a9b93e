"""From clips to features: log-mels of their audio and codes of their mels, each computed once and kept.

Owns what the caches hold and how a voice's mel is cut. Knows nothing of losses or of the loop.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..audio.mel import log_mel, published_mel_norms
from ..audio.waveform import read_audio
from ..errors import AudioError, InputError
from .augment import augment
from .config import AugmentConfig
from .data import FRAMES_A_SECOND, ArrayCache, Clip
from .phones import classes_of, flat, lay

if TYPE_CHECKING:
    from ..model.codec import Codec
    from .phones import Labels, PhoneRecogniser, Places

log = logging.getLogger("clvp")
Note = Callable[[str, int, int], None]
Floats = NDArray[np.float32]
NAMED = 10  # files left out that are named; the others are counted


class Features:
    """Mels and codes of a manifest's clips.

    Args:
        directory: where the caches are kept.
        note: hears (what, how many, of how many) while they are filled.
    """

    def __init__(self, directory: Path, note: Note) -> None:
        self.directory, self.note = directory, note
        self.norms = np.array(published_mel_norms(), dtype=np.float32)  # a copy: the published ones are read only
        self.unread = 0  # sound files that could not be read
        self.mels = ArrayCache(directory, "mels", "float16", len(self.norms))
        self._codes: ArrayCache | None = None
        self._places: ArrayCache | None = None

    def make_mels(self, clips: Sequence[Clip]) -> list[Clip]:
        """Compute missing mels; returns the clips whose audio could be read (or that have none), the others noticed."""
        audio = [clip.audio for clip in clips if clip.audio]
        stamps = stamps_of({name: name for name in audio})
        self.mels.fill(audio, self._mel, lambda n, of: self.note("mels", n, of), stamps)
        there = [clip for clip in clips if not clip.audio or clip.audio in self.mels]
        if len(there) < len(clips):
            log.warning("left out: %d of %d clips, whose audio cannot be read", len(clips) - len(there), len(clips))
        return there

    def make_codes(self, clips: Sequence[Clip], codec: Codec | None, name: str, variants: int = 1) -> list[Clip]:
        """Compute missing codes of clips that have only audio; returns the clips that have codes.

        Args:
            name: of the codec, so that another one gets a cache of its own.
            variants: codes of each clip: as it is, and so many less one augmented copies.
        Raises:
            InputError: a clip has audio alone and there is no codec.
        """
        from_audio = [clip for clip in clips if not clip.codes]
        if not from_audio:
            return list(clips)
        if codec is None:
            raise InputError(
                f"{from_audio[0].audio}: audio, and no codec to turn it into codes",
                "give --model or data.codec a model with a codec, or codes in the manifest",
            )
        there = self.make_mels(from_audio)
        cache = self._codes = ArrayCache(self.directory, f"codes-{name}", "int32", 1)
        made_of = {f"{variant}:{clip.audio}": clip.audio for clip in there for variant in range(variants)}
        stamps = stamps_of(made_of)
        cache.fill(list(made_of), lambda key: self._encode(codec, key), lambda n, of: self.note("codes", n, of), stamps)
        return [clip for clip in clips if clip.codes or f"0:{clip.audio}" in cache]

    def make_places(self, clips: Sequence[Clip], recogniser: PhoneRecogniser, name: str) -> None:
        """Lay the phones of clips along their frames, where they have both.

        Args:
            name: of the recogniser, so that another one gets a cache of its own.
        """
        laid = {place_key(clip): clip for clip in clips if clip.audio and clip.phones}
        stamps = stamps_of({key: clip.audio for key, clip in laid.items()})
        cache = self._places = ArrayCache(self.directory, f"phones-{name}", "int16", 1)

        def place(key: str) -> NDArray[np.int16] | None:
            mel = self.plain(laid[key].audio)
            found = lay(recogniser.hear(mel), flat(laid[key].phones), mel)
            return None if found is None else found[:, None]

        cache.fill(list(laid), place, lambda n, of: self.note("phones", n, of), stamps)

    def places(self, clip: Clip, first: int = 0, count: int | None = None) -> Places | None:
        """The number of the phone in each slot of two frames (T,), or in a part of them, −1 in silence; None where it
        is not known."""
        if self._places is None or place_key(clip) not in self._places:
            return None
        return self._places.read(place_key(clip), first, count)[:, 0].copy()

    def labels(self, clip: Clip, first: int = 0, count: int | None = None) -> Labels | None:
        """The class of the phone in each slot (T,), or in a part of them; None where it is not known."""
        found = self.places(clip, first, count)
        return None if found is None else classes_of(found, clip.phones)

    def _mel(self, key: str) -> NDArray[np.float16] | None:
        try:
            samples = read_audio(key).samples
        except AudioError as error:
            self.unread += 1
            log.log(logging.WARNING if self.unread <= NAMED else logging.INFO, "left out: %s", error.message)
            return None
        return log_mel(samples, mel_norms=self.norms).T.astype(np.float16)

    def _encode(self, codec: Codec, key: str) -> NDArray[np.int32]:
        import torch

        variant, _, audio = key.partition(":")
        mel = self.mel(audio)
        if variant != "0":
            rng = np.random.default_rng(zlib.crc32(key.encode()))
            plain = self.plain(audio)
            mel = augment(plain, plain, AugmentConfig(), rng)[1] / self.norms[:, None]
        with torch.inference_mode():
            codes = codec.encode(torch.from_numpy(mel)[None])
        return codes[0].numpy().astype(np.int32)[:, None]

    def mel(self, key: str, first: int = 0, count: int | None = None) -> Floats:
        """(80, frames) float32, or a part of it."""
        return self.mels.read(key, first, count).astype(np.float32).T.copy()

    def plain(self, key: str, first: int = 0, count: int | None = None) -> Floats:
        """The same, not normalised: natural log power."""
        return self.mel(key, first, count) * self.norms[:, None]

    def codes(self, clip: Clip, variant: int = 0) -> NDArray[np.int64]:
        """(T,) codes of a clip; variants above 0 are of augmented copies."""
        if clip.codes:
            return np.asarray(clip.codes, dtype=np.int64)
        assert self._codes is not None
        return self._codes.read(f"{variant}:{clip.audio}")[:, 0].astype(np.int64)

    def seconds(self, clip: Clip) -> float:
        """Length of a clip."""
        if clip.audio in self.mels:
            return self.mels.rows(clip.audio) / FRAMES_A_SECOND
        return len(clip.codes) * 4 / FRAMES_A_SECOND

    def voice(self, clip: Clip, frames: int) -> Floats:
        """(80, frames): a clip's mel from its start, cut, or followed by silence as the published extractor pads."""
        mel = self.mel(clip.audio, 0, frames)
        silence = (np.log(1e-5) / self.norms).astype(np.float32)[:, None]
        return np.concatenate([mel, np.repeat(silence, frames - mel.shape[1], axis=1)], axis=1)


def place_key(clip: Clip) -> str:
    """What the cache of laid phones knows a clip by: its audio, and what is said in it."""
    return f"{zlib.crc32(bytes(flat(clip.phones)))}:{clip.audio}"


def stamps_of(made_of: Mapping[str, str]) -> dict[str, str]:
    """Keys of what is made of sound files → the file's size and time of its last change, by which one that was replaced
    is told; files that are there alone: what was kept of others stays."""
    found = {}
    for path in set(made_of.values()):
        with suppress(OSError, ValueError):
            status = Path(path).stat()
            found[path] = f"{status.st_size}-{status.st_mtime_ns}"
    return {key: found[path] for key, path in made_of.items() if path in found}


def partners(clips: Sequence[Clip]) -> list[list[int]]:
    """For each clip the places of its speaker's clips with audio, itself included."""
    by_speaker: dict[str, list[int]] = {}
    for place, clip in enumerate(clips):
        if clip.audio:
            by_speaker.setdefault(clip.speaker, []).append(place)
    return [by_speaker.get(clip.speaker, []) for clip in clips]
