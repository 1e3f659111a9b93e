"""Training the alignment head, and the speech encoder under it: log P(text | codes).

The head alone is trained where the model's own speech encoder is to stay as it is (`pair.freeze`), as for a published
checkpoint; a new speech encoder learns with it. Owns how a batch of codes and texts is made for the encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import ClvpConfig
from ..errors import InputError
from ..model.alignment import AlignmentHead
from ..model.clvp import fix_speech_codes
from ..model.encoder import Encoder
from . import losses
from .data import Clip
from .phones import SPACE
from .workshop import Workshop

Codes = NDArray[np.int64]
Ids = tuple[int, ...]
EMBEDDING_NORM = 8.0  # of a new table: what a code is must not drown in what untrained layers add to it


@dataclass(frozen=True)
class Spoken:
    """Codes as the speech encoder reads them, padded: (B, T), lengths (B,), mask (B, T)."""

    codes: Tensor
    lengths: Tensor
    mask: Tensor


def spoken(rows: Sequence[Codes], config: ClvpConfig, device: torch.device) -> Spoken:
    """Rows of codes, each with one stop and fixed as scoring fixes them, in one padded batch."""
    stop, fixing = config.decoder_config.eos_token_id, config.decoder_config.decoder_fixing_codes
    closed = [torch.from_numpy(np.append(row, stop)) for row in rows]
    fixed = [fix_speech_codes(row[None], stop, fixing)[0] for row in closed]
    lengths = torch.tensor([len(row) for row in fixed])
    codes = nn.utils.rnn.pad_sequence(fixed, batch_first=True)
    mask = (torch.arange(codes.shape[1]) < lengths[:, None]).long()
    return Spoken(codes.to(device), lengths, mask.to(device))


def written(texts: Sequence[Sequence[int]], stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Texts with the closing stop each: ids (B, S) and mask (B, S)."""
    rows = [torch.tensor([*text, stop]) for text in texts]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = (torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]).long()
    return ids.to(device), mask.to(device)


def scramble(codes: Tensor, share: float, vocabulary: int) -> Tensor:
    """Codes with a share of them replaced at random: the encoder must not lean on any single one."""
    if not share:
        return codes
    hit = torch.rand(codes.shape, device=codes.device) < share
    return torch.where(hit, torch.randint_like(codes, vocabulary), codes)


def speech_encoder(workshop: Workshop) -> Encoder:
    """The speech encoder to train: the base's, or a new one that begins with the codec's idea of likeness."""
    encoder = workshop.part("speech", lambda: Encoder(workshop.model_config.speech_config))
    if not workshop.has_part("speech"):
        workshop.seed_embedding(encoder.token_embedding.weight, EMBEDDING_NORM)
    return encoder


class CodedClips:
    """The clips of a run that have codes, their lengths, and the batches drawn of them."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop, self.config = workshop, workshop.config
        self.clips: list[Clip] = workshop.coded()
        self.lengths = [len(workshop.features.codes(clip)) + 1 for clip in self.clips]
        self.training, self.evaluation = workshop.draws(self.clips, self.lengths)
        if self.training is None:
            raise InputError(f"{self.config.data.manifest}: no clip to train on", "every line's split is held out")

    def check(self, codes: int, ids: int) -> None:
        """InputError where a clip has a code or an id that is beyond tables of so many."""
        for clip in self.clips:
            code, one = int(self.workshop.features.codes(clip).max(initial=0)), max(clip.ids, default=0)
            if code >= codes or one >= ids:
                raise InputError(
                    f"{self.config.data.manifest}: {clip.text[:30]!r} has code {code} and id {one}: the model knows "
                    f"codes to {codes - 1} and ids to {ids - 1}",
                    "its vocab_size must be that of the codec, and of the tokenizer",
                )

    def batch(self, step: int) -> tuple[list[int], np.random.Generator]:
        """The places of a training step's clips, and its generator."""
        assert self.training is not None
        return self.training(step)

    def spoken_texts(self, step: int) -> tuple[list[Codes], list[Ids], np.random.Generator]:
        """Codes and texts of a training step's clips; in a share of the steps clips are joined in twos.

        Joined clips are longer than the corpus's, and what is learned of short ones then holds for long ones.
        """
        places, rng = self.batch(step)
        rows, texts = self.codes(places, rng), self.texts(places)
        if len(rows) >= 4 and rng.random() < self.config.pair.join:
            first = [int(i) for i in rng.permutation(len(rows))[: len(rows) // 2 * 2]]
            twos = list(zip(first[::2], first[1::2], strict=True))
            rows = [np.concatenate([rows[a], rows[b]]) for a, b in twos]
            texts = [(*texts[a], SPACE, *texts[b]) for a, b in twos]
        return rows, texts, rng

    def held_out_texts(self, number: int) -> tuple[list[Codes], list[Ids], np.random.Generator] | None:
        """Codes and texts of an evaluation batch; None where nothing is held out."""
        if self.evaluation is None:
            return None
        places, rng = self.evaluation(number)
        return self.codes(places), self.texts(places), rng

    def codes(self, places: Sequence[int], rng: np.random.Generator | None = None) -> list[Codes]:
        """Codes of clips; with a generator, of a variant drawn for each."""
        variants = self.config.data.variants if rng is not None else 1
        picks = [0 if rng is None or variants == 1 else int(rng.integers(variants)) for _ in places]
        return [self.workshop.features.codes(self.clips[i], v) for i, v in zip(places, picks, strict=True)]

    def texts(self, places: Sequence[int]) -> list[Ids]:
        """Ids of clips' texts."""
        return [self.clips[i].ids for i in places]


class AlignmentTask:
    """Codes → text, through the speech encoder and the head."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop, self.settings = workshop, workshop.config.pair
        self.data = CodedClips(workshop)
        self.model_config = workshop.model_config
        self.encoder = speech_encoder(workshop)
        head = workshop.side("alignment", input_size=self.model_config.speech_config.hidden_size)
        assert isinstance(head, AlignmentHead)
        self.data.check(self.model_config.speech_config.vocab_size, head.config.vocab_size)
        self.head = head
        self.encoder.requires_grad_(not self.settings.freeze)
        self.module: nn.Module = nn.ModuleDict({"speech": self.encoder, "alignment": self.head})

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """CTC of a batch."""
        rows, texts, _ = self.data.spoken_texts(step)
        heard = spoken(rows, self.model_config, self.workshop.device)
        codes = scramble(heard.codes, self.settings.dropout, self.model_config.speech_config.vocab_size)
        return self._ctc(Spoken(codes, heard.lengths, heard.mask), texts), {}

    def _ctc(self, heard: Spoken, texts: Sequence[Ids]) -> Tensor:
        hidden = self.encoder.hidden(self.encoder.token_embedding(heard.codes), heard.mask)
        wanted = [self.head.targets(text) for text in texts]
        return losses.alignment(self.head(hidden, heard.mask), heard.lengths, wanted, self.head.config.blank)

    def after_step(self, step: int) -> None:
        """Nothing."""

    def held_out(self, batches: int) -> dict[str, float]:
        """CTC on held-out clips."""
        each = []
        for batch in (self.data.held_out_texts(number) for number in range(batches)):
            if batch is None:
                return {}
            heard = spoken(batch[0], self.model_config, self.workshop.device)
            each.append(float(self._ctc(heard, batch[1])))
        return {"loss": float(np.mean(each))}

    def export(self, path: Path) -> None:
        """The model with this head."""
        parts = {} if self.settings.freeze and self.workshop.base else {"speech": self.encoder}
        self.workshop.save(path, parts, {"alignment": self.head})
