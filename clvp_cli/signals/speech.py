"""How the speech encoder hears candidates: fixed, padded as the profile asks, and nothing beyond that.

Candidates of many lengths go through the encoder in one pass without pads, each attending to itself alone, so that
what is heard of a candidate is its own. Knows nothing of texts, files or commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import ClvpDecoderConfig
from ..errors import CandidateError, ConfigError
from ..model.clvp import fix_speech_codes
from ..model.encoder import Encoder
from ..model.ragged import ragged_hidden
from ..records import Candidate

TOKENS_A_BATCH = 8192  # codes of one length at once, whatever the number of candidates
TOKENS_A_PASS = 2048  # codes in one pass where lengths differ: what lies between two layers stays in the cache

Pad = Literal["own", "batch"] | int


@dataclass(frozen=True, eq=False)
class Heard:
    """n candidates of one length T: their places among all, and the speech encoder's hidden states (n, T, D)."""

    members: list[int]
    hidden: Tensor


class SpeechReader:
    """Reads candidates through the speech encoder."""

    def __init__(
        self, speech: Encoder, decoder_config: ClvpDecoderConfig, *, pad: Pad = "own", batch_size: int = 0
    ) -> None:
        self.speech, self.decoder_config, self.pad, self.batch_size = speech, decoder_config, pad, batch_size

    @torch.inference_mode()
    def read(self, candidates: Sequence[Candidate]) -> Iterator[Heard]:
        """Every candidate once, those of equal length together."""
        length = self._length(candidates)
        rows = [self.codes(candidate, length) for candidate in candidates]
        device = self.speech.token_embedding.weight.device
        for groups in passes(buckets([len(row) for row in rows], self.batch_size), rows, self.batch_size):
            codes = [torch.from_numpy(np.stack([rows[m] for m in members])).to(device) for members in groups]
            for members, hidden in zip(groups, ragged_hidden(self.speech, codes), strict=True):
                yield Heard(members, hidden)

    def codes(self, candidate: Candidate, length: int | None = None) -> NDArray[np.int64]:
        """What the encoder reads of a candidate: (T,) its codes, one stop if it stopped, stops up to `length`, fixed.

        Raises CandidateError for a candidate with neither codes nor a stop, or with a code outside the speech
        vocabulary; ConfigError where the codes that fix its end are outside it.
        """
        vocab = self.speech.config.vocab_size
        where = f"{candidate.source or 'candidate'} row {candidate.index}"
        wrong = candidate.codes[(candidate.codes < 0) | (candidate.codes >= vocab)]
        if len(wrong) and wrong[0] == self.decoder_config.bos_token_id:
            raise CandidateError(
                f"{where}: holds the start code {wrong[0]}, which the speech encoder does not know",
                "sampling.suppress_start: true never draws it",
            )
        if len(wrong):
            raise CandidateError(
                f"{where}: code {wrong[0]} is outside the speech vocabulary (0 … {vocab - 1})",
                "was it made by a model with another codebook?",
            )
        if not len(candidate.codes) and not candidate.stopped:
            raise CandidateError(f"{where}: no codes before the stop", "a candidate has codes, or a stop at least")
        closing = max(int(candidate.stopped), (length or 0) - candidate.length)
        if not closing:
            return candidate.codes
        stop = self.decoder_config.eos_token_id
        codes = np.append(candidate.codes, np.full(closing, stop, dtype=np.int64))
        fixing = self.decoder_config.decoder_fixing_codes
        if not all(0 <= code < vocab for code in fixing):
            raise ConfigError(
                f"decoder_fixing_codes {list(fixing)}: the speech encoder knows 0 … {vocab - 1} alone",
                "correct decoder_fixing_codes in the model's config.json: four codes of its own silence",
            )
        fixed = fix_speech_codes(torch.from_numpy(codes[None]), stop, fixing)
        return np.asarray(fixed[0].numpy())

    def _length(self, candidates: Sequence[Candidate]) -> int | None:
        if self.pad == "own":
            return None
        if self.pad == "batch":
            return max((c.length + c.stopped for c in candidates), default=0)
        return int(self.pad)


def buckets(lengths: Sequence[int], batch_size: int = 0) -> Iterator[list[int]]:
    """Places of equal length together, at most TOKENS_A_BATCH codes or batch_size rows at once."""
    by_length: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        by_length.setdefault(length, []).append(place)
    for length in sorted(by_length):
        members = by_length[length]
        most = batch_size or max(1, TOKENS_A_BATCH // max(1, length))
        yield from (members[start : start + most] for start in range(0, len(members), most))


def passes(
    groups: Iterator[list[int]], rows: Sequence[NDArray[np.int64]], batch_size: int = 0
) -> Iterator[list[list[int]]]:
    """Buckets of places put together to TOKENS_A_PASS codes, or batch_size rows, a pass; one bucket at least."""
    held: list[list[int]] = []
    codes = count = 0
    for members in groups:
        size = len(members) * len(rows[members[0]])
        if held and (codes + size > TOKENS_A_PASS or (batch_size and count + len(members) > batch_size)):
            yield held
            held, codes, count = [], 0, 0
        held.append(members)
        codes, count = codes + size, count + len(members)
    if held:
        yield held
