"""The CLVP cosine: text and speech encoder, one unit vector each, and exp(logit_scale) times their cosine.

Owns padding and batching of candidates for the speech encoder; knows nothing of files or commands. Candidates of equal
padded length share a batch and nothing is padded beyond what the profile asks, so a score is its candidate's alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import ClvpDecoderConfig
from ..errors import CandidateError
from ..model.clvp import fix_speech_codes, unit
from ..model.encoder import Encoder
from ..records import Candidate

TOKENS_A_BATCH = 8192  # codes in one pass of the speech encoder, whatever the number of candidates

Pad = Literal["own", "batch"] | int


class ClvpSignal:
    """Judges candidates by the CLVP logit; `cosines` gives the bare cosine."""

    name = "clvp"
    family = "clvp"

    def __init__(
        self,
        text: Encoder,
        speech: Encoder,
        logit_scale: Tensor,
        decoder_config: ClvpDecoderConfig,
        *,
        pad: Pad = "own",
        batch_size: int = 0,
    ) -> None:
        self.text, self.speech = text, speech
        self.scale = float(logit_scale.float().exp())
        self.decoder_config, self.pad, self.batch_size = decoder_config, pad, batch_size

    def judge(self, ids: NDArray[np.int64], candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        """Text ids (S,), N candidates → (N,) logits: cosine · exp(logit_scale)."""
        return self.cosines(ids, candidates) * self.scale

    def cosines(self, ids: NDArray[np.int64], candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        """Text ids (S,), N candidates → (N,) cosines."""
        return np.asarray(self.speech_vectors(candidates) @ self.text_vector(ids), dtype=np.float64)

    @torch.inference_mode()
    def text_vector(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Ids (S,) → unit vector (E,) of the ids and the closing 0."""
        closed = np.append(ids, self.text.config.eos_token_id)
        vector: NDArray[np.float32] = unit(self.text.embed(self._tensor(closed[None], self.text)))[0].cpu().numpy()
        return vector

    @torch.inference_mode()
    def speech_vectors(self, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        """N candidates → unit vectors (N, E)."""
        rows = [self.speech_codes(candidate, self._length(candidates)) for candidate in candidates]
        vectors = np.zeros((len(rows), self.speech.config.projection_dim), dtype=np.float32)
        for members in buckets([len(row) for row in rows], self.batch_size):
            codes = np.stack([rows[m] for m in members])
            vectors[members] = unit(self.speech.embed(self._tensor(codes, self.speech))).cpu().numpy()
        return vectors

    def speech_codes(self, candidate: Candidate, length: int | None = None) -> NDArray[np.int64]:
        """What the speech encoder reads of a candidate: (T,) its codes, one stop if it stopped, padded with stops to
        `length`, then fixed. CandidateError for a code outside the speech vocabulary."""
        stop, vocab = self.decoder_config.eos_token_id, self.speech.config.vocab_size
        where = f"{candidate.source or 'candidate'} row {candidate.index}"
        wrong = candidate.codes[(candidate.codes < 0) | (candidate.codes >= vocab)]
        if len(wrong):
            raise CandidateError(
                f"{where}: code {wrong[0]} is outside the speech vocabulary (0 … {vocab - 1})",
                "was it made by a model with another codebook?",
            )
        if not len(candidate.codes):
            raise CandidateError(f"{where}: no codes before the stop", "an empty candidate cannot be judged")
        closing = max(int(candidate.stopped), (length or 0) - candidate.length)
        codes = np.append(candidate.codes, np.full(closing, stop, dtype=np.int64))
        fixing = self.decoder_config.decoder_fixing_codes
        if not closing:
            return codes
        return np.asarray(fix_speech_codes(torch.from_numpy(codes[None]), stop, fixing)[0].numpy())

    def _length(self, candidates: Sequence[Candidate]) -> int | None:
        if self.pad == "own":
            return None
        if self.pad == "batch":
            return max((c.length + c.stopped for c in candidates), default=0)
        return int(self.pad)

    @staticmethod
    def _tensor(rows: NDArray[np.int64], encoder: Encoder) -> Tensor:
        return torch.from_numpy(rows).to(encoder.token_embedding.weight.device)


def buckets(lengths: Sequence[int], batch_size: int = 0) -> Iterator[list[int]]:
    """Places of equal length together, at most TOKENS_A_BATCH codes or batch_size rows at once."""
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    while order:
        length = lengths[order[0]]
        most = batch_size or max(1, TOKENS_A_BATCH // max(1, length))
        members = [place for place in order[:most] if lengths[place] == length]
        yield members
        order = order[len(members) :]
