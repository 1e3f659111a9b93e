"""The alignment signal: log P(text | codes) a text token, where a checkpoint has the head for it."""

from __future__ import annotations

import torch

from ..model.alignment import AlignmentHead
from . import Ids, Values
from .speech import Heard


class AlignmentSignal:
    """Judges candidates by connectionist temporal classification on the speech encoder's hidden states."""

    name = "alignment"

    def __init__(self, head: AlignmentHead) -> None:
        self.head = head

    @torch.inference_mode()
    def judge(self, ids: Ids, heard: Heard) -> Values:
        """Text ids (S,), n candidates → (n,) log-likelihoods a text token."""
        log_probs = self.head(heard.hidden.float())
        lengths = torch.full((len(log_probs),), log_probs.shape[1])
        values: Values = self.head.score(log_probs, lengths, [ids.tolist()] * len(log_probs)).double().cpu().numpy()
        return values
