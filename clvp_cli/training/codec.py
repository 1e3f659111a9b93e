"""Training the codec: mel → codes → the same mel, in the voice of another clip of the speaker.

The encoder may hear noise; what must come out is the clean clip. Where the phones are known, each code alone must tell
its two, by one linear layer that is dropped at the end, and a recogniser must hear them in what comes out: so few codes
keep what was said before they keep how. Source of the codebook's training: van den Oord et al. 2017, appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ..model.codec import FLOOR, SPREAD, Codec, frame_mask
from . import losses
from .augment import augment
from .data import FRAMES_A_SECOND
from .features import partners
from .phones import CONSONANTS, SLOT, Labels
from .quantiser import RunningCodebook
from .recogniser import Teller, padded, slot_loss, stretched
from .workshop import Workshop

Floats = NDArray[np.float32]
LEVEL_CLIPS = 200  # clips whose mean level is the codec's usual one


@dataclass(frozen=True)
class Cut:
    """A clip, or a part of it, for a batch: plain log-mels (M, F) of what should come out, of what the encoder hears
    and of the voice, and the phone's class in each slot of two frames where it is known."""

    target: Floats
    heard: Floats
    voice: Floats
    labels: Labels | None


class CodecTask:
    """Mel → latents → nearest codes → mel."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop, self.settings = workshop, workshop.config.codec
        self.clips = [clip for clip in workshop.clips if clip.audio]
        if not self.clips:
            raise InputError(
                f"{workshop.config.data.manifest}: no audio", "the codec learns from audio, not from codes"
            )
        self.crop = int(self.settings.crop_seconds * FRAMES_A_SECOND)
        lengths = [min(self.crop, workshop.features.mels.rows(clip.audio)) for clip in self.clips]
        self.training, self.evaluation = workshop.draws(self.clips, lengths)
        if self.training is None:
            raise InputError(f"{workshop.config.data.manifest}: no clip to train on", "every line's split is held out")
        self.partners = partners(self.clips)
        codec = workshop.side("codec")
        assert isinstance(codec, Codec)
        self.codec = codec
        self.listener = workshop.lay_phones(self.clips)
        if self.listener is None and (self.settings.phones or self.settings.listen):
            raise ConfigError("codec.phones and codec.listen need data.phones", "clvp train phones makes a recogniser")
        if self.settings.listen and not codec.config.relative:
            raise ConfigError("codec.listen needs a codec of relative mels", "model: {codec: {relative: true}}")
        self.reader = Teller(codec.config.codebook_dim, codec.config.stride // SLOT)
        nn.init.normal_(self.reader.weight)  # latents of unit length: a smaller one tells no two codes apart
        self.codebook = RunningCodebook(codec.codebook, self.settings.decay, unit=codec.config.unit_latents)
        if workshop.has_side("codec"):
            self.codebook.adopt()
        self.module: nn.Module = nn.ModuleDict({"codec": codec, "reader": self.reader, "codebook": self.codebook}).to(
            workshop.device
        )
        self._settle_levels()

    def _settle_levels(self) -> None:
        config, features = self.codec.config, self.workshop.features
        if not config.relative or float(self.codec.usual_level.abs().sum()) > 0:
            return
        self.codec.bands.copy_(torch.from_numpy(features.norms))
        device = self.workshop.device
        mels = [torch.from_numpy(features.mel(clip.audio))[None].to(device) for clip in self.clips[:LEVEL_CLIPS]]
        levels = [self.codec.level(mel, torch.ones_like(mel[:, :1])) for mel in mels]
        self.codec.usual_level.copy_(torch.cat(levels).mean(0))

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Mel distance, commitment and reading of a batch."""
        assert self.training is not None
        places, rng = self.training(step)
        return self._distance([self._augmented(self._cut(place, rng), rng) for place in places], step)

    def _distance(self, cuts: Sequence[Cut], step: int) -> tuple[Tensor, dict[str, float]]:
        codec, settings = self.codec, self.settings
        target, heard, voice = (self._pad([getattr(c, name) for c in cuts]) for name in ("target", "heard", "voice"))
        labels = padded([cut.labels for cut in cuts], target[0].shape[2] // SLOT)
        latents, mask = codec.latents(*heard)
        # Before the codebook is put in, latents pass as they are; a codec that is fine-tuned has one already.
        fresh = step < settings.continuous_steps and not self.codebook.settled
        quantised, commitment = (latents, latents.sum() * 0) if fresh else self.codebook(latents, mask)
        if fresh:
            self.codebook.remember(latents, mask)
        quantised = quantised * mask
        _, vector = codec.voice_of(*voice)
        made = codec.modulated(quantised, vector)
        kept = frame_mask(*target)
        wanted = codec.scaled(target[0], codec.level(target[0], kept)) if codec.config.relative else target[0]
        weight = kept * self._weights(labels, kept)
        distance, plain = losses.mel_distance(made, wanted, weight, relative=codec.config.relative)
        if vector is not None and codec.training:
            with torch.no_grad():
                codec.usual_voice.lerp_(vector.detach().float().mean(0), 0.01)
        loss = distance + settings.commitment * commitment
        figures = {"mel": float(plain), "commitment": float(commitment.detach())}
        if settings.phones:
            read = self.reader.loss(quantised.transpose(1, 2), labels, settings.consonants)
            loss, figures["phones"] = loss + settings.phones * read, float(read.detach())
        if settings.listen and self.listener is not None:
            listened = slot_loss(self.listener(made.float() * kept, kept), labels, settings.consonants)
            loss, figures["listen"] = loss + settings.listen * listened, float(listened.detach())
        return loss, figures if fresh else {**figures, "codes_used": self.codebook.used()}

    def _weights(self, labels: Labels, kept: Tensor) -> Tensor:
        """How much each frame counts (B, 1, F): consonants, quiet and short as they are, more than the rest."""
        heard = np.repeat(CONSONANTS[np.maximum(labels, 0)], SLOT, axis=1)
        return 1 + self.settings.consonants * torch.from_numpy(heard).to(kept)[:, None, : kept.shape[2]]

    def _cut(self, place: int, rng: np.random.Generator) -> Cut:
        """A clip, cropped, and a voice of its speaker: its own or another clip's."""
        features, clip = self.workshop.features, self.clips[place]
        stride = self.codec.config.stride
        spare = max(0, features.mels.rows(clip.audio) - self.crop)
        first = int(rng.integers(0, spare // stride + 1)) * stride
        mel = features.plain(clip.audio, first, self.crop)
        labels = features.labels(clip, first // SLOT, -(-mel.shape[1] // SLOT))
        others = self.partners[place]
        other = self.clips[others[int(rng.integers(len(others)))]] if rng.random() < self.settings.other_clip else clip
        voice = features.plain(other.audio, 0, self.crop)
        return Cut(mel, mel, voice, labels)

    def _augmented(self, cut: Cut, rng: np.random.Generator) -> Cut:
        target, heard, voice = augment(cut.target, cut.voice, self.settings.augment, rng)
        labels = cut.labels
        if labels is not None:
            labels = stretched(labels, cut.target.shape[1], target.shape[1])
        return Cut(target, heard, voice, labels)

    def _pad(self, mels: Sequence[Floats]) -> tuple[Tensor, Tensor]:
        """Plain log-mels → normalised (B, M, F), F a multiple of the stride, and lengths (B,)."""
        stride = self.codec.config.stride
        frames = -(-max(mel.shape[1] for mel in mels) // stride) * stride
        padded = np.full((len(mels), len(mels[0]), frames), FLOOR, dtype=np.float32)
        for row, mel in zip(padded, mels, strict=True):
            row[:, : mel.shape[1]] = mel
        device = self.workshop.device
        norms = torch.from_numpy(self.workshop.features.norms)[:, None]
        lengths = torch.tensor([mel.shape[1] for mel in mels], device=device)
        return (torch.from_numpy(padded) / norms).to(device), lengths

    def after_step(self, step: int) -> None:
        """Move the codebook to where the latents are."""
        if step + 1 >= self.settings.continuous_steps or self.codebook.settled:
            self.codebook.update(step)

    def held_out(self, batches: int) -> dict[str, float]:
        """Mel distance through the codebook on held-out clips, each in its own voice."""
        if self.evaluation is None:
            return {}
        each, plain = [], []
        for number in range(batches):
            places, rng = self.evaluation(number)
            cuts = [self._cut(place, rng) for place in places]
            own = [Cut(cut.target, cut.target, cut.target, cut.labels) for cut in cuts]
            loss, figures = self._distance(own, self.settings.continuous_steps)
            each.append(float(loss))
            plain.append(figures["mel"] * (SPREAD if self.codec.config.relative else 1.0))
        return {"loss": float(np.mean(each)), "log_mel": float(np.mean(plain))}

    def export(self, path: Path) -> None:
        """The model with this codec."""
        self.workshop.save(path, {}, {"codec": self.codec})
