"""Training the contrastive pair: text and speech encoder, one cosine.

Batches are of like length (data.Draw sees to it), so that duration alone tells nothing, and every clip may bring a
damaged copy of its codes as one more wrong answer. Owns the pair's loss; knows nothing of the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..model.alignment import AlignmentHead
from ..model.clvp import unit
from ..model.encoder import Encoder
from . import losses
from .alignment import EMBEDDING_NORM, CodedClips, Codes, Ids, Spoken, scramble, speech_encoder, spoken, written
from .negatives import damage
from .sizes import LARGEST
from .workshop import Workshop

SHORTEST = 8  # codes of a clip that is worth damaging
SCALE_LIMIT = 4.6052  # exp of it is 100: beyond that the loss only sharpens


def widen(table: Tensor) -> None:
    """Give a new table's rows the norm that new code vectors have."""
    with torch.no_grad():
        table.mul_(EMBEDDING_NORM / table.norm(dim=1).mean())


class PairTask:
    """Text ↔ codes."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop, self.settings = workshop, workshop.config.pair
        self.data = CodedClips(workshop)
        self.model_config = workshop.model_config
        self.text = workshop.part("text", lambda: Encoder(self.model_config.text_config))
        if not workshop.has_part("text"):
            widen(self.text.token_embedding.weight)
        self.speech = speech_encoder(workshop)
        self.speech.requires_grad_(not self.settings.freeze)
        self.scale = nn.Parameter(torch.tensor(workshop.scale, device=workshop.device))
        self.module: nn.Module = nn.ModuleDict({"text": self.text, "speech": self.speech})
        self.module.register_parameter("logit_scale", self.scale)
        self.head: AlignmentHead | None = None
        if self.settings.alignment:
            head = workshop.side("alignment", input_size=self.model_config.speech_config.hidden_size)
            assert isinstance(head, AlignmentHead) and isinstance(self.module, nn.ModuleDict)
            self.head = self.module["alignment"] = head
        sizes = self.model_config
        ids = min(sizes.text_config.vocab_size, self.head.config.vocab_size if self.head else LARGEST)
        self.data.check(sizes.speech_config.vocab_size, ids)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Contrastive loss of a batch, its damaged copies among the wrong answers; the alignment head's beside it, and
        how far the head tells clips from their damaged copies."""
        rows, texts, rng = self.data.spoken_texts(step)
        damaged, origin = self._damaged(rows, rng)
        heard = spoken([*rows, *damaged], self.model_config, self.workshop.device)
        codes = scramble(heard.codes, self.settings.dropout, self.model_config.speech_config.vocab_size)
        heard = Spoken(codes, heard.lengths, heard.mask)
        hidden = self._hidden(heard)
        speech = unit(self.speech.projection(self.speech.summarise(hidden, heard.mask)))
        return self._combined(texts, speech, hidden, heard, origin)

    def _combined(
        self, texts: Sequence[Ids], speech: Tensor, hidden: Tensor, heard: Spoken, origin: list[int]
    ) -> tuple[Tensor, dict[str, float]]:
        clips = len(texts)
        text, factor = self._text(texts), self.scale.exp()
        right, wrong = speech[:clips], speech[clips:]
        loss = losses.contrastive(text, right, factor, self._same(texts), wrong if origin else None)
        figures = {"pair": float(loss.detach())}
        if self.head is not None:
            wanted = [self.head.targets(ids) for ids in texts]
            told = clips + len(origin) if self.settings.apart else clips
            log_probs = self.head(hidden[:told], heard.mask[:told])
            whole = [*wanted, *(wanted[place] for place in origin)][:told]
            costs = losses.costs(log_probs, heard.lengths[:told], whole, self.head.config.blank)
            aligned = losses.a_token(costs[:clips], wanted)
            figures["alignment"] = float(aligned.detach())
            loss = loss + self.settings.alignment * aligned
            if told > clips:
                apart = losses.apart(costs[origin], costs[clips:])
                figures["apart"] = float(apart.detach())
                loss = loss + self.settings.apart * apart
        return loss, figures

    def _hidden(self, heard: Spoken) -> Tensor:
        return self.speech.hidden(self.speech.token_embedding(heard.codes), heard.mask)

    def _text(self, texts: Sequence[Ids]) -> Tensor:
        ids, mask = written(texts, self.model_config.text_config.eos_token_id, self.workshop.device)
        return unit(self.text.embed(ids, mask))

    def _same(self, texts: Sequence[Ids]) -> Tensor:
        """(B, B) True where another clip says the same text: no wrong answer."""
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        said = torch.tensor([numbers[text] for text in texts], device=self.workshop.device)
        same = said[:, None] == said[None, :]
        return same & ~torch.eye(len(said), dtype=torch.bool, device=same.device)

    def _damaged(self, rows: Sequence[Codes], rng: np.random.Generator) -> tuple[list[Codes], list[int]]:
        count = round(len(rows) * self.settings.damaged)
        chosen = sorted(int(i) for i in rng.permutation(len(rows))[:count] if len(rows[i]) >= SHORTEST)
        others = rng.integers(len(rows), size=len(rows))
        return [damage(rows[i], rng, None, rows[others[i]]) for i in chosen], chosen

    def after_step(self, step: int) -> None:
        """Keep the scale from growing without end."""
        with torch.no_grad():
            self.scale.clamp_(max=SCALE_LIMIT)

    def held_out(self, batches: int) -> dict[str, float]:
        """Loss and the right clip of 16 of like length, on held-out clips."""
        each: list[float] = []
        hits: list[bool] = []
        for batch in (self.data.held_out_texts(number) for number in range(batches)):
            if batch is None:
                return {}
            rows, texts, rng = batch
            heard = spoken(rows, self.model_config, self.workshop.device)
            hidden = self._hidden(heard)
            speech = unit(self.speech.projection(self.speech.summarise(hidden, heard.mask)))
            each.append(float(self._combined(texts, speech, hidden, heard, [])[0]))
            similarity = self._text(texts) @ speech.t()
            for row in range(len(rows)):
                others = [int(i) for i in rng.permutation(len(rows)) if i != row][:15]
                hits.append(bool((similarity[row, row] > similarity[row, others]).all()))
        return {"loss": float(np.mean(each)), "right_of_16": float(np.mean(hits))}

    def export(self, path: Path) -> None:
        """The model with this pair."""
        parts = {"text": self.text, "speech": self.speech}
        self.workshop.save(path, parts, {} if self.head is None else {"alignment": self.head}, self.scale)
