"""The alignment head: what the speech encoder heard, as log P(text | codes), by connectionist temporal classification.

Tensors only. An optional part of any checkpoint: it reads the speech encoder's last hidden states (after its final
norm) and says, code by code, which text token is being spoken, or none. Its score sums over every way to lay the text
along the codes, so it hears a dropped, repeated or swapped word that a single cosine overlooks.

B batch, T codes, D width of the speech encoder, W width of the head, C text tokens and the blank, S text ids.
Source: Graves et al. 2006, "Connectionist temporal classification".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import check_size, known_only
from ..errors import ConfigError, InputError


@dataclass(frozen=True)
class AlignmentConfig:
    """Sizes of the head, and which text ids it does not listen for."""

    input_size: int = 768  # the speech encoder's hidden_size
    hidden_size: int = 256
    kernel_size: int = 5  # codes that one convolution sees, odd
    num_layers: int = 2
    vocab_size: int = 256  # text tokens; the blank is one more, the last class
    ignored_ids: list[int] = field(default_factory=lambda: [0, 1, 2, 255])  # end, unknown, blank between words, begin

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "kernel_size", "vocab_size", "num_layers"):
            check_size("alignment ", name, getattr(self, name), least=name != "num_layers")
        ids = self.ignored_ids
        if not isinstance(ids, list | tuple) or not all(type(each) is int for each in ids):
            raise ConfigError("alignment ignored_ids: a list of text ids is expected")
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"alignment kernel_size {self.kernel_size}: an odd number is expected")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AlignmentConfig:
        """From the content of a config.json; ConfigError names a key that is not known."""
        return cls(**known_only(cls, values, "alignment"))

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json."""
        return {"model_type": "alignment", **asdict(self)}

    @property
    def blank(self) -> int:
        """The class of "no token here"."""
        return self.vocab_size


class AlignmentHead(nn.Module):
    """Hidden states → log-probabilities of the text token at each code; `score` sums over alignments."""

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.input = nn.Linear(config.input_size, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(config.num_layers)])
        self.convs = nn.ModuleList(
            [
                nn.Conv1d(width, width, config.kernel_size, padding=config.kernel_size // 2)
                for _ in range(config.num_layers)
            ]
        )
        self.output = nn.Linear(width, config.vocab_size + 1)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Last hidden states (B, T, D), mask of codes (B, T) → log-probabilities (B, T, C) in float32."""
        x = self.input(hidden)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            inner = norm(x)
            if mask is not None:
                inner = inner * mask.unsqueeze(-1).to(inner.dtype)  # pads are to the convolution what the end is
            x = x + F.gelu(conv(inner.transpose(1, 2)).transpose(1, 2))
        out: Tensor = self.output(x).float().log_softmax(-1)
        return out

    def targets(self, ids: Sequence[int]) -> list[int]:
        """The ids that can be heard: blanks between words and special tokens leave no sound of their own."""
        return [i for i in ids if i not in self.config.ignored_ids]

    def log_likelihood(self, log_probs: Tensor, lengths: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
        """log P(text | codes) of B texts, whole, not normalised: (B, T, C), lengths (B,) → (B,), −inf where a text
        has more tokens than there are codes."""
        heard = [self.targets(text) for text in texts]
        counts = torch.tensor([len(text) for text in heard])
        flat = torch.tensor([i for text in heard for i in text], dtype=torch.long)
        return -F.ctc_loss(
            log_probs.transpose(0, 1).cpu(), flat, lengths.cpu(), counts, blank=self.config.blank, reduction="none"
        ).to(log_probs.device)

    def score(self, log_probs: Tensor, lengths: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
        """log P(text | codes) a text token (B,): higher is better, lengths of texts compare.

        A text that cannot be laid along the codes, having more tokens than there are codes, gets the likelihood of the
        worst alignment there is, not divided by its length: finite, and below any text that can be.

        Raises:
            InputError: a text without a token that can be heard.
        """
        counts = torch.tensor([len(self.targets(text)) for text in texts], device=log_probs.device)
        if not counts.all():
            raise InputError("a text without a token that can be heard", "give a text with letters in it")
        whole = self.log_likelihood(log_probs, lengths, texts)
        worst = log_probs.amin((1, 2)) * lengths.to(log_probs.device)
        return torch.where(whole.isfinite(), whole / counts, worst)
