"""Training the codec: mel → codes → the same mel, in the voice of another clip of the speaker.

The encoder may hear noise; what must come out is the clean clip. A small CTC head on the quantised latents, dropped at
the end, keeps what was said in the codes. Source of the codebook's training: van den Oord et al. 2017, appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import InputError
from ..model.alignment import AlignmentConfig, AlignmentHead
from ..model.codec import FLOOR, SPREAD, Codec, frame_mask
from . import losses
from .augment import augment
from .data import FRAMES_A_SECOND
from .features import partners
from .quantiser import RunningCodebook
from .workshop import Workshop

Floats = NDArray[np.float32]
LEVEL_CLIPS = 200  # clips whose mean level is the codec's usual one


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
        self.reader = AlignmentHead(
            AlignmentConfig(input_size=codec.config.codebook_dim, hidden_size=160, num_layers=3)
        )
        self.codebook = RunningCodebook(codec.codebook, self.settings.decay, unit=codec.config.unit_latents)
        if workshop.has_side("codec"):
            self.codebook.adopt()
        self.module: nn.Module = nn.ModuleDict(
            {"codec": codec, "reader": self.reader.to(workshop.device), "codebook": self.codebook}
        )
        self._settle_levels()

    def _settle_levels(self) -> None:
        config, features = self.codec.config, self.workshop.features
        if not config.relative or float(self.codec.usual_level.abs().sum()) > 0:
            return
        self.codec.bands.copy_(torch.from_numpy(features.norms))
        mels = [torch.from_numpy(features.mel(clip.audio))[None] for clip in self.clips[:LEVEL_CLIPS]]
        levels = [self.codec.level(mel.to(self.workshop.device), torch.ones_like(mel[:, :1])) for mel in mels]
        self.codec.usual_level.copy_(torch.cat(levels).mean(0))

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Mel distance, commitment and reading of a batch."""
        assert self.training is not None
        places, rng = self.training(step)
        clips = [self._cut(place, rng) for place in places]
        drawn = [augment(mel, voice, self.settings.augment, rng) for mel, voice, _ in clips]
        texts = [self.clips[p].ids if whole else () for p, (_, _, whole) in zip(places, clips, strict=True)]
        target, heard, voice = (self._pad([row[i] for row in drawn]) for i in range(3))
        return self._distance(target, heard, voice, texts, step)

    def _distance(
        self,
        target: tuple[Tensor, Tensor],
        heard: tuple[Tensor, Tensor],
        voice: tuple[Tensor, Tensor],
        texts: Sequence[Sequence[int]],
        step: int,
    ) -> tuple[Tensor, dict[str, float]]:
        codec, settings = self.codec, self.settings
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
        distance, plain = losses.mel_distance(made, wanted, kept, relative=codec.config.relative)
        lengths = mask[:, 0].sum(-1).long()
        texts = [self.reader.targets(text) for text in texts]
        read = losses.alignment(
            self.reader(quantised.transpose(1, 2), mask[:, 0]), lengths, texts, self.reader.config.blank
        )
        if vector is not None and codec.training:
            with torch.no_grad():
                codec.usual_voice.lerp_(vector.detach().float().mean(0), 0.01)
        loss = distance + settings.commitment * commitment + settings.text * read
        use = {} if fresh else {"codes_used": self.codebook.used()}
        return loss, {
            "mel": float(plain),
            "commitment": float(commitment.detach()),
            "text": float(read.detach()),
            **use,
        }

    def _cut(self, place: int, rng: np.random.Generator) -> tuple[Floats, Floats, bool]:
        """A clip's plain log-mel, cropped; its voice's; and whether the clip is whole."""
        features, clip = self.workshop.features, self.clips[place]
        rows = features.mels.rows(clip.audio)
        first = int(rng.integers(0, max(1, rows - self.crop + 1)))
        norms = features.norms[:, None]
        mel = features.mel(clip.audio, first, self.crop) * norms
        others = self.partners[place]
        other = self.clips[others[int(rng.integers(len(others)))]] if rng.random() < 0.5 else clip
        return mel, features.mel(other.audio, 0, self.crop) * norms, rows <= self.crop

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
            mels = self._pad([self._cut(place, rng)[0] for place in places])
            loss, figures = self._distance(mels, mels, mels, [()] * len(places), self.settings.continuous_steps)
            each.append(float(loss))
            plain.append(figures["mel"] * (SPREAD if self.codec.config.relative else 1.0))
        return {"loss": float(np.mean(each)), "log_mel": float(np.mean(plain))}

    def export(self, path: Path) -> None:
        """The model with this codec."""
        self.workshop.save(path, {}, {"codec": self.codec})
