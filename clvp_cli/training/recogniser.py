"""Training the recogniser of phones: first by classification of the whole clip (CTC), then slot by slot.

Without `data.phones` nothing is known but which phones a clip has, in their order; with it, the recogniser named there
has laid them along the clip, and this one learns how long each lasts. Owns its batches and loss; no loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..model.codec import frame_mask
from . import losses
from .augment import augment
from .config import AugmentConfig
from .phones import CLASSES, CONSONANTS, SILENCE, SLOT, Labels, PhoneRecogniser, flat, relative
from .workshop import Workshop


class RecogniserTask:
    """Mel → phones."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        data, features = workshop.config.data, workshop.features
        self.clips = [
            clip
            for clip in workshop.clips
            if clip.audio and clip.phones and data.min_seconds <= features.seconds(clip) <= data.max_seconds
        ]
        if not self.clips:
            raise InputError(
                f"{data.manifest}: no clip with audio and phones", 'write them as "phones": "hˌɛlO wˈɜɹld"'
            )
        self.training, self.evaluation = workshop.draws(self.clips, [features.mels.rows(c.audio) for c in self.clips])
        if self.training is None:
            raise InputError(f"{data.manifest}: no clip to train on", "every line's split is held out")
        self.slot_by_slot = workshop.lay_phones(self.clips) is not None
        recogniser = workshop.side("phones")
        assert isinstance(recogniser, PhoneRecogniser)
        self.recogniser = recogniser
        self.module: nn.Module = nn.ModuleDict({"phones": recogniser})

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Phones of a batch."""
        assert self.training is not None
        places, rng = self.training(step)
        return self._loss(places, rng), {}

    def _loss(self, places: Sequence[int], rng: np.random.Generator | None) -> Tensor:
        features = self.workshop.features
        mels, labels = [], []
        for place in places:
            plain = features.plain(self.clips[place].audio)
            changed = plain if rng is None else augment(plain, plain, AugmentConfig(), rng)[1]
            mels.append(relative(changed))
            labels.append(self._labels(place, plain.shape[1], changed.shape[1]))
        frames = [mel.shape[1] for mel in mels]
        batch = np.zeros((len(mels), len(mels[0]), -(-max(frames) // SLOT) * SLOT), dtype=np.float32)
        for row, mel in zip(batch, mels, strict=True):
            row[:, : mel.shape[1]] = mel
        heard = torch.from_numpy(batch).to(self.workshop.device)
        log_probs = self.recogniser(heard, frame_mask(heard, torch.tensor(frames)))
        if self.slot_by_slot:
            return slot_loss(log_probs, padded(labels, log_probs.shape[1]))
        phones = [flat(self.clips[place].phones) for place in places]
        slots = torch.tensor([-(-count // SLOT) for count in frames])
        return losses.alignment(log_probs, slots, phones, SILENCE)

    def _labels(self, place: int, frames: int, heard: int) -> Labels | None:
        found = self.workshop.features.labels(self.clips[place])
        return None if found is None else stretched(found, frames, heard)

    def after_step(self, step: int) -> None:
        """Nothing."""

    def held_out(self, batches: int) -> dict[str, float]:
        """Loss on held-out clips."""
        if self.evaluation is None:
            return {}
        return {"loss": float(np.mean([float(self._loss(self.evaluation(n)[0], None)) for n in range(batches)]))}

    def export(self, path: Path) -> None:
        """A model directory with this recogniser alone."""
        self.workshop.save(path, {}, {"phones": self.recogniser})


def stretched(labels: Labels, before: int, after: int) -> Labels:
    """Labels of the slots of a clip of `before` frames, for the same clip at the tempo of `after` frames."""
    if before == after:
        return labels
    slots = np.arange(-(-after // SLOT)) * before / after
    return labels[np.minimum(slots.astype(np.int64), len(labels) - 1)]


def padded(labels: Sequence[Labels | None], slots: int) -> Labels:
    """The class in each slot of clips (B, T), losses.IGNORED where it is not known."""
    wanted = np.full((len(labels), slots), losses.IGNORED, dtype=np.int64)
    for row, known in zip(wanted, labels, strict=True):
        if known is not None:
            row[: min(len(known), slots)] = known[:slots]
    return wanted


def slot_loss(log_probs: Tensor, wanted: Labels, consonants: float = 0.0) -> Tensor:
    """Cross-entropy (B, T, C) of the class in each slot (B, T), over those that are known; 0 for none.

    A consonant counts 1 + `consonants` times as much: it is short, and its place in a text tells as much as a vowel's.
    """
    if (wanted == losses.IGNORED).all():
        return log_probs.sum() * 0
    weight = torch.from_numpy(1 + consonants * CONSONANTS).to(log_probs.device, torch.float32)
    target = torch.from_numpy(wanted).to(log_probs.device)
    return F.nll_loss(log_probs.flatten(0, 1).float(), target.flatten(), weight, ignore_index=losses.IGNORED)


class Teller(nn.Linear):
    """Tells the phones of each code, one a slot, of a vector for it; dropped when the training is over."""

    def __init__(self, width: int, slots: int) -> None:
        super().__init__(width, slots * CLASSES)
        self.slots = slots

    def loss(self, vectors: Tensor, wanted: Labels, consonants: float = 0.0) -> Tensor:
        """`slot_loss` of what vectors (B, T, D) tell of the slots (B, slots · T)."""
        told = self(vectors).unflatten(-1, (self.slots, CLASSES)).flatten(1, 2)
        return slot_loss(told.float().log_softmax(-1), wanted, consonants)
