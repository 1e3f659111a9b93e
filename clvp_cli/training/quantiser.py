"""A codebook that follows its latents by running means, with codes that nobody uses put where latents are.

Tensors only. Source: van den Oord et al. 2017, appendix A; restarts as in Dhariwal et al. 2020 (Jukebox).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model.codec import Codebook

UNUSED = 0.01  # running count below which a code is put elsewhere
RESTART_EVERY = 10  # steps
REMEMBERED = 65_536  # latents kept to draw the first codebook from


class RunningCodebook(nn.Module):
    """Quantises latents (B, D, T) in training and keeps `codebook.embed` at the means of what fell to each code."""

    counts: Tensor
    sums: Tensor
    memory: Tensor
    seen: Tensor

    def __init__(self, codebook: Codebook, decay: float, *, unit: bool) -> None:
        super().__init__()
        self._codebook = [codebook]  # in a list: its state belongs to the codec's own
        self.decay, self.unit = decay, unit
        dim, codes = codebook.embed.shape
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(dim, codes))
        self.register_buffer("memory", torch.zeros(REMEMBERED, dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self._batch: tuple[Tensor, Tensor] | None = None

    @property
    def settled(self) -> bool:
        """Whether there is a codebook in use."""
        return bool(self.counts.sum() > 0)

    def adopt(self) -> None:
        """Take the codebook as it is for the start of the running means (fine-tuning)."""
        self.counts.fill_(0.2)
        self.sums.copy_(self._codebook[0].embed * 0.2)

    def remember(self, latents: Tensor, mask: Tensor) -> None:
        """Keep latents for the first codebook."""
        if not self.training:
            return
        rows = latents.detach().float().transpose(1, 2)[mask[:, 0].bool()]
        seen = int(self.seen)
        place = (seen + torch.arange(len(rows), device=rows.device)) % REMEMBERED
        self.memory[place] = rows
        self.seen.add_(len(rows))

    def forward(self, latents: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, T) → the nearest columns with the latents' gradient, and the commitment: squared distance, mean."""
        codebook = self._codebook[0]
        kept = mask[:, 0].bool()
        rows = latents.float().transpose(1, 2)[kept]
        codes = codebook.nearest(rows.detach())
        nearest = codebook.embed.t()[codes]
        if self.training:
            self._batch = (rows.detach(), codes)
        full = torch.zeros_like(latents, dtype=torch.float32).transpose(1, 2)
        full[kept] = nearest
        through = latents + (full.transpose(1, 2) - latents).detach()
        return through, (rows - nearest).pow(2).sum(-1).mean()

    def used(self) -> float:
        """Share of the codes in use, by entropy: exp(entropy of the running counts) / codes."""
        share = self.counts / self.counts.sum().clamp(min=1e-9)
        return float(torch.exp(-(share * (share + 1e-12).log()).sum()) / len(share))

    def update(self, step: int) -> None:
        """Move the codebook by what the last batch fell to; at first, draw it from what was remembered."""
        if not self.settled:
            count = min(int(self.seen), REMEMBERED)
            pick = self.memory[torch.randint(max(1, count), (self.counts.shape[0],), device=self.memory.device)]
            self.counts.fill_(0.2)
            self.sums.copy_(pick.t() * 0.2)
        elif self._batch is not None:
            rows, codes = self._batch
            self.counts.mul_(self.decay).index_add_(0, codes, torch.full_like(rows[:, 0], 1 - self.decay))
            self.sums.mul_(self.decay).index_add_(1, codes, rows.t() * (1 - self.decay))
            if step % RESTART_EVERY == 0:
                self._restart(rows)
        means = self.sums if self.unit else self.sums / self.counts.clamp(min=1e-6)
        self._codebook[0].embed.copy_(F.normalize(means, dim=0) if self.unit else means)

    def _restart(self, rows: Tensor) -> None:
        idle = (self.counts < UNUSED).nonzero()[:, 0]
        idle = idle[torch.randperm(len(idle), device=idle.device)][: len(rows)]
        pick = rows[torch.randperm(len(rows), device=rows.device)[: len(idle)]]
        self.sums[:, idle] = pick.t() * 0.05
        self.counts[idle] = 0.05
