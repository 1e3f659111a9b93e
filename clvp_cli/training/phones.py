"""What is said when: a recogniser of phones on log-mels, and a clip's phones laid along its frames.

Letters are far from sounds, and a network that learns both at once from a few hours takes hours over it. Phones are
near: the recogniser hears them after a hundred steps, and then every two frames of every clip have a name, which the
codec's codes are taught to keep and the decoder's attention is shown. Training only: no model that speaks carries it.

B batch, M mel bands, F mel frames, T slots of two frames (23 ms, half a code), C classes: silence and the phones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import known_only
from ..errors import ConfigError
from ..model.codec import SPREAD
from .guide import forced_alignment

SLOT = 2  # mel frames
SILENCE = 0
# General American as hibari's G2P writes it, a character a phone: A, I, O, W, Y are diphthongs, ʤ and ʧ affricates.
ALPHABET = "əɹntɪsdilkɛmzæðʌwpvhbfIAɔɑuOʃŋɡɜjʊWʤʧθYʒ"
LIKE = {"ᵊ": "ə", "ɐ": "ə", "ᵻ": "ɪ", "T": "d", "ɾ": "d"}  # reduced vowels, and the flap
VOWELS = "əɪiɛæʌIAɔɑuOɜʊWY"
NUMBERS = {phone: number for number, phone in enumerate(ALPHABET, start=1)}
CLASSES = len(ALPHABET) + 1
CONSONANTS = np.array([False, *(phone not in VOWELS for phone in ALPHABET)])  # by class
DILATIONS = (1, 1, 2, 2, 3, 1)
SPACE, FIRST_LETTER = 2, 14  # ids of the published vocabulary: between words, and the first that is no punctuation
LONGEST_REACH = 4  # slots that a phone fills at most beyond those where it was heard
PAUSE = 5.0  # natural log power below a clip's loud frames: silence

Floats = NDArray[np.float32]
Places = NDArray[np.int16]  # (T,) the number of the phone in its clip, −1 in silence
Labels = NDArray[np.int64]  # (T,) the class in each slot
Words = tuple[tuple[int, ...], ...]  # classes of a text's phones, word by word


def read_phones(text: str) -> Words:
    """Words of phones, apart by spaces, stress marks and punctuation passed over → their classes."""
    words = (tuple(NUMBERS[p] for p in (LIKE.get(c, c) for c in word) if p in NUMBERS) for word in text.split())
    return tuple(word for word in words if word)


def flat(words: Words) -> list[int]:
    """The phones of all words."""
    return [phone for word in words for phone in word]


@dataclass(frozen=True)
class PhoneConfig:
    """Sizes of the recogniser."""

    feature_size: int = 80
    hidden_size: int = 144
    classes: int = CLASSES

    def __post_init__(self) -> None:
        if not all(type(value) is int and value > 0 for value in asdict(self).values()):
            raise ConfigError("phones: sizes are whole numbers above 0")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PhoneConfig:
        """From the content of a config.json; ConfigError names a key that is not known."""
        return cls(**known_only(cls, values, "phones"))

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json."""
        return {"model_type": "phones", **asdict(self)}


class PhoneRecogniser(nn.Module):
    """Relative mels → log-probabilities of the phone in each slot: a convolution of stride two, six residual ones."""

    def __init__(self, config: PhoneConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.input = nn.Conv1d(config.feature_size, width, 5, stride=SLOT, padding=2)
        self.norms = nn.ModuleList([nn.GroupNorm(1, width) for _ in DILATIONS])
        self.convs = nn.ModuleList([nn.Conv1d(width, width, 5, padding=2 * d, dilation=d) for d in DILATIONS])
        self.output = nn.Conv1d(width, config.classes, 1)

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        """Mels as `relative` gives them (B, M, F), mask (B, 1, F) → (B, T, C)."""
        mask = mask[:, :, ::SLOT]
        x = F.gelu(self.input(mel)) * mask
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + F.gelu(conv(norm(x) * mask)) * mask
        out: Tensor = self.output(x).transpose(1, 2).float().log_softmax(-1)
        return out

    @torch.no_grad()
    def hear(self, mel: Floats) -> Floats:
        """A clip's plain log-mel (M, F) → log-probabilities (T, C)."""
        scaled = np.pad(relative(mel), ((0, 0), (0, mel.shape[1] % SLOT)))
        heard = torch.from_numpy(scaled)[None]
        found: Floats = self(heard, torch.ones_like(heard[:, :1]))[0].numpy()
        return found


def lay(log_probs: Floats, phones: Sequence[int], mel: Floats) -> Places | None:
    """Lay a clip's phones along its slots: the most probable alignment, each phone as wide as its neighbours allow.

    log_probs (T, C) of the recogniser, plain log-mel (M, F); None where the clip is too short for its phones. The
    recogniser is sure of a phone for a slot or two; the slots between two phones go to the nearer one, quiet ones and
    those that lie far from any phone to silence.
    """
    heard = forced_alignment(log_probs, phones, SILENCE)
    if heard is None:
        return None
    spots = [np.flatnonzero(heard == number) for number in range(len(phones))]
    if any(not len(spot) for spot in spots):
        return None
    power = np.logaddexp.reduce(mel, axis=0)
    power = np.maximum.reduceat(power, np.arange(0, len(power), SLOT))[: len(heard)]
    places = np.full(len(heard), -1, dtype=np.int16)
    firsts, lasts = [int(s[0]) for s in spots], [int(s[-1]) for s in spots]
    edges = [0, *((last + first) // 2 + 1 for last, first in zip(lasts, firsts[1:], strict=False)), len(heard)]
    for number, (start, end) in enumerate(pairwise(edges)):
        reach = slice(max(start, firsts[number] - LONGEST_REACH), min(end, lasts[number] + LONGEST_REACH + 1))
        places[reach] = number
    sounding = power >= np.percentile(power, 90) - PAUSE
    sounding[np.concatenate(spots)] = True
    places[~sounding] = -1
    return places


def classes_of(places: Places, words: Words) -> Labels:
    """The class in each slot (T,)."""
    return np.array([*flat(words), SILENCE], dtype=np.int64)[places]  # −1 is the last


def text_places(places: Places, words: Words, spans: Sequence[tuple[int, int]], codes: int) -> Floats:
    """Where in its text each code is (codes,): the id that is being said, between two ids in a pause.

    Args:
        places: of the clip's slots.
        words: the text's phones; spans: first and last-but-one id of each written word. Where there are as many of
            one as of the other a word's phones spread over its own ids, else all phones over the whole text.
    """
    if len(words) != len(spans):
        words, spans = (tuple(flat(words)),), [(spans[0][0], spans[-1][1])]
    spread = [
        start + (np.arange(len(word)) + 0.5) / len(word) * (end - start) - 0.5
        for word, (start, end) in zip(words, spans, strict=True)
    ]
    where = np.concatenate(spread)
    known = np.flatnonzero(places >= 0)
    slots = np.interp(np.arange(2 * codes), known, where[places[known]])
    found: Floats = slots.reshape(codes, 2).mean(1).astype(np.float32)
    return found


def word_spans(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Where the written words of a text lie among its ids: first letter and behind the last, punctuation left out."""
    spans: list[tuple[int, int]] = []
    start = 0
    for place, one in enumerate([*ids, SPACE]):
        if one == SPACE:
            end = place
            while end > start + 1 and ids[end - 1] < FIRST_LETTER:
                end -= 1
            if end > start:
                spans.append((start, end))
            start = place + 1
    return spans


def relative(mel: Floats) -> Floats:
    """A plain log-mel (M, F) less the log of each band's mean power, scaled as the codec's decoder gives it."""
    level = np.logaddexp.reduce(mel, axis=1, keepdims=True) - math.log(mel.shape[1])
    return ((mel - level) / SPREAD + 1.0).astype(np.float32)
