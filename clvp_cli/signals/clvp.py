"""The CLVP logit: exp(logit_scale) times the cosine of the text's and the candidate's unit vector.

Source: behaviour of the published ClvpModelForConditionalGeneration; the text is encoded once, not once a candidate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..model.clvp import unit
from ..model.conditioning import insert_stop
from ..model.encoder import Encoder
from . import Ids, Values
from .speech import Heard


class ClvpSignal:
    """Judges candidates by the CLVP logit."""

    name = "clvp"

    def __init__(self, text: Encoder, speech: Encoder, logit_scale: Tensor) -> None:
        self.text, self.speech = text, speech
        self.scale = float(logit_scale.float().exp())
        if self.scale == 0 or math.isinf(self.scale):  # NaN is told of the signal, as that of any weight is
            told = f"logit_scale is {float(logit_scale):g}, so that no cosine has a logit"
            raise CheckpointError(told, "the weights may be damaged: copy or fetch them again")
        self._known: tuple[bytes, Tensor] | None = None

    @torch.inference_mode()
    def judge(self, ids: Ids, heard: Heard) -> Values:
        """Text ids (S,), n candidates → (n,) logits: cosine · exp(logit_scale)."""
        vectors = unit(self.speech.projection(self.speech.summarise(heard.hidden)))  # (n, E)
        cosines: Values = (vectors @ self.text_vector(ids)).double().cpu().numpy()
        return cosines * self.scale

    def forget(self) -> None:
        """Drop the vector of the last text."""
        self._known = None

    @torch.inference_mode()
    def text_vector(self, ids: Ids) -> Tensor:
        """Ids (S,) → unit vector (E,) of the ids and the closing 0; that of the last text is kept.

        As published, the closing 0 goes before a 0 that is in the text already ("[STOP]" written out).
        """
        key = ids.tobytes()
        if self._known is None or self._known[0] != key:
            closed = insert_stop(torch.from_numpy(ids)[None], self.text.config.eos_token_id)
            self._known = key, unit(self.text.embed(closed.to(self.text.token_embedding.weight.device)))[0]
        return self._known[1]
