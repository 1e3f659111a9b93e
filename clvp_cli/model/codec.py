"""The codec: log-mel ↔ codes, one code for four frames (46 ms), the class of model of Tortoise's dvae.pth.

Tensors only. Tortoise's autoencoder is `CodecConfig()` exactly. Three options, all off there, make a small one go
further: latents of unit length (`unit_latents`), mels taken relative to the clip's own long-term level (`relative`),
and a decoder that is modulated by the mel of a voice (`voice_dim`).

B batch, M mel bands, F mel frames, T codes, D latent width, V voice vector width.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import check_size, known_only
from ..errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

FLOOR = math.log(1e-5)  # the published clamp under the logarithm: digital silence
SPREAD = (
    3.0  # the standard deviation of speech about its long-term level, in log power: scales relative mels to about 1
)
CODES_A_BLOCK = 4096  # latents compared with the codebook at a time: bounds the distance table


@dataclass(frozen=True)
class CodecConfig:
    """Sizes. Defaults are those of Tortoise's dvae.pth."""

    feature_size: int = 80  # mel bands
    num_codes: int = 8192
    codebook_dim: int = 512
    hidden_size: int = 512  # width after the first halving; twice that after the second
    kernel_size: int = 3
    num_layers: int = 2  # halvings of the frame rate
    num_residual_blocks: int = 3
    unit_latents: bool = False  # latents and codebook on the unit sphere
    relative: bool = False  # mels less the clip's long-term level, which the decoder takes from the voice
    voice_dim: int = 0  # width of the vector that modulates the decoder; 0: no voice
    voice_hidden: int = 128  # width of the voice network

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.type == "int":
                check_size("codec ", f.name, getattr(self, f.name))
            elif not isinstance(getattr(self, f.name), bool):
                raise ConfigError(f"codec {f.name}: true or false is expected")
        check_size("codec ", "widest layer", self.hidden_size * 2**self.num_layers)
        if self.kernel_size % 2 == 0 or min(self.feature_size, self.num_codes, self.codebook_dim, self.num_layers) < 1:
            raise ConfigError("codec: kernel_size must be odd; bands, codes, codebook_dim and layers at least 1")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CodecConfig:
        """From the content of a config.json; ConfigError names a key that is not known."""
        return cls(**known_only(cls, values, "codec"))

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json."""
        return {"model_type": "codec", **asdict(self)}

    @property
    def stride(self) -> int:
        """Mel frames a code."""
        return int(2**self.num_layers)

    @property
    def widths(self) -> list[int]:
        """Channels after each halving."""
        return [self.hidden_size * 2**i for i in range(self.num_layers)]


class ResidualBlock(nn.Module):
    """x + net(x): two convolutions of three frames and a pointwise one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(width, width, 1),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, T) → (B, C, T). The mask (B, 1, T) keeps what lies behind a clip's end out of the next convolution."""
        inner = self.net[1](self.net[0](x))
        if mask is not None:
            inner = inner * mask
        out: Tensor = x + self.net[4](self.net[3](self.net[2](inner)))
        return out if mask is None else out * mask


class Upsampling(nn.Module):
    """Each frame twice, then a convolution."""

    def __init__(self, wide: int, narrow: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(wide, narrow, kernel_size, padding=(kernel_size - 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x.repeat_interleave(2, dim=-1))
        return out


class Codebook(nn.Module):
    """`embed` (D, codes), one column a code."""

    embed: Tensor

    def __init__(self, dim: int, codes: int) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(dim, codes))

    def nearest(self, latents: Tensor) -> Tensor:
        """Latents (N, D) → the index of the nearest column (N,), by Euclidean distance."""
        table = self.embed.float()
        half_squares = table.pow(2).sum(0) / 2
        blocks = [(block @ table - half_squares).argmax(1) for block in torch.split(latents.float(), CODES_A_BLOCK)]
        return torch.cat(blocks) if blocks else latents.new_zeros(0, dtype=torch.long)

    def vectors(self, codes: Tensor) -> Tensor:
        """Codes (B, T) → (B, D, T)."""
        return self.embed.t()[codes].transpose(1, 2)


class VoiceNetwork(nn.Module):
    """A voice's relative mel and its level → one vector: convolutions, mean and deviation over time, two layers."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        width = config.voice_hidden
        self.convs = nn.ModuleList(
            [nn.Conv1d(config.feature_size, width, 5, padding=2), nn.Conv1d(width, width, 5, padding=2)]
        )
        self.mix = nn.Linear(2 * width + config.feature_size, width)
        self.out = nn.Linear(width, config.voice_dim)

    def forward(self, mel: Tensor, level: Tensor, mask: Tensor) -> Tensor:
        """Scaled mel (B, M, F), scaled level (B, M), mask (B, 1, F) → (B, V)."""
        x = mel * mask
        for conv in self.convs:
            x = F.relu(conv(x)) * mask
        count = mask.sum(-1).clamp(min=1)
        mean = x.sum(-1) / count  # (B, C)
        deviation = ((x - mean.unsqueeze(-1)).pow(2) * mask).sum(-1).div(count).add(1e-5).sqrt()
        out: Tensor = self.out(F.relu(self.mix(torch.cat((mean, deviation, level), dim=-1))))
        return out


class Codec(nn.Module):
    """encode: log-mel → codes. decode: codes, and a voice where the model takes one → log-mel."""

    bands: Tensor
    usual_level: Tensor
    usual_voice: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        widths, kernel = config.widths, config.kernel_size
        inner, blocks = widths[-1], config.num_residual_blocks
        enc: list[nn.Module] = []
        for narrow, wide in zip([config.feature_size, *widths], widths, strict=False):
            enc.append(nn.Sequential(nn.Conv1d(narrow, wide, kernel, stride=2, padding=(kernel - 1) // 2), nn.ReLU()))
        enc += [ResidualBlock(inner) for _ in range(blocks)]
        self.encoder = nn.ModuleList([*enc, nn.Conv1d(inner, config.codebook_dim, 1)])
        dec: list[nn.Module] = [nn.Conv1d(config.codebook_dim, inner, 1)]
        dec += [ResidualBlock(inner) for _ in range(blocks)]
        descending = [inner, *reversed(widths)]
        for wide, narrow in pairwise(descending):
            dec.append(nn.Sequential(Upsampling(wide, narrow, kernel), nn.ReLU()))
        self.decoder = nn.ModuleList([*dec, nn.Conv1d(descending[-1], config.feature_size, 1)])
        self.codebook = Codebook(config.codebook_dim, config.num_codes)
        if config.relative:
            self.register_buffer("bands", torch.ones(config.feature_size))  # the mel norms: log-mel = mel · bands
            self.register_buffer("usual_level", torch.zeros(config.feature_size))
        if config.voice_dim:
            self.register_buffer("usual_voice", torch.zeros(config.voice_dim))
            self.voice = VoiceNetwork(config)
            modulated = [inner] * (blocks + 1) + descending[1:-1]
            self.film = nn.ModuleList([nn.Linear(config.voice_dim, 2 * width) for width in modulated])
            for layer in self.film:
                nn.init.zeros_(cast(nn.Linear, layer).weight)
                nn.init.zeros_(cast(nn.Linear, layer).bias)

    # ── encoding ────────────────────────────────────────────────────────────────────────────────────────────────────

    def encode(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Log-mels (B, M, F) of `lengths` (B,) frames → codes (B, T), T = ceil(ceil(F/2)/2); 0 behind a clip's end.

        A clip's codes are those it has alone: what lies behind its end never counts.
        """
        latents, mask = self.latents(mel, lengths)
        flat = latents.transpose(1, 2).reshape(-1, self.config.codebook_dim)
        return self.codebook.nearest(flat).view(latents.shape[0], -1) * mask[:, 0].long()

    def latents(self, mel: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-mels (B, M, F) → latents (B, D, T) before the codebook, and the mask of codes (B, 1, T)."""
        if mel.ndim != 3 or mel.shape[1] != self.config.feature_size or not mel.shape[2]:
            raise InputError(
                f"log-mels of shape {tuple(mel.shape)}: (batch, {self.config.feature_size}, frames) is needed"
            )
        mask = frame_mask(mel, lengths)
        x = mel * mask
        if self.config.relative:
            x = self.scaled(mel, self.level(mel, mask)) * mask
        for index, layer in enumerate(self.encoder):
            if index < self.config.num_layers:
                mask = mask[:, :, ::2]
                x = layer(x) * mask
            else:
                x = layer(x, mask) if isinstance(layer, ResidualBlock) else layer(x)
        return (F.normalize(x.float(), dim=1) if self.config.unit_latents else x), mask

    # ── decoding ────────────────────────────────────────────────────────────────────────────────────────────────────

    def decode(self, codes: Tensor, voice: Tensor | None = None, voice_lengths: Tensor | None = None) -> Tensor:
        """Codes (B, T) and the log-mel of a voice (B or 1, M, Fv) → log-mel (B, M, stride · T).

        A codec without a voice ignores it; one with a voice speaks in its usual one where none is given.
        """
        if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= self.config.num_codes):
            raise InputError(
                f"a code outside the codebook (0 … {self.config.num_codes - 1})", "stop codes are not sound"
            )
        level, vector = self.voice_of(voice, voice_lengths)
        return self.synthesise(self.codebook.vectors(codes), level, vector)

    def voice_of(self, voice: Tensor | None, lengths: Tensor | None = None) -> tuple[Tensor | None, Tensor | None]:
        """The level (B, M) and the vector (B, V) of voices (B, M, Fv), or the usual ones; None where not modelled."""
        level = vector = None
        if voice is None:
            level = self.usual_level.unsqueeze(0) if self.config.relative else None
            return level, (self.usual_voice.unsqueeze(0) if self.config.voice_dim else None)
        mask = frame_mask(voice, lengths)
        if self.config.relative:
            level = self.level(voice, mask)
        if self.config.voice_dim:
            x = voice if level is None else self.scaled(voice, level)
            summary = (voice * mask).sum(-1) / mask.sum(-1) if level is None else (level - self.usual_level) / SPREAD
            heard = mask * self._sounding(voice) if self.config.relative else mask
            vector = self.voice(x, summary, heard)
        return level, vector

    def synthesise(self, latents: Tensor, level: Tensor | None, vector: Tensor | None) -> Tensor:
        """Latents (B, D, T), level (B or 1, M), vector (B or 1, V) → log-mel (B, M, stride · T)."""
        x = self.modulated(latents, vector)
        if level is None:
            return x
        plain = (level.unsqueeze(-1) + (x.float() - 1.0) * SPREAD).clamp(min=FLOOR)
        return plain / self.bands.unsqueeze(-1)

    def modulated(self, latents: Tensor, vector: Tensor | None) -> Tensor:
        """Latents (B, D, T), a voice's vector (B or 1, V) → the decoder's output (B, M, stride · T), no level added."""
        x = latents
        for index, layer in enumerate(self.decoder):
            x = layer(x)
            if vector is not None and index < len(self.film):
                scale, shift = self.film[index](vector).unsqueeze(-1).chunk(2, dim=1)
                x = x * (1 + scale) + shift
        return x

    # ── levels ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def level(self, mel: Tensor, mask: Tensor) -> Tensor:
        """The long-term level of clips: log of each band's mean power over the frames that are not digital silence.

        Mel (B, M, F), mask (B, 1, F) → (B, M). Power is what loud frames make, so pauses hardly move it.
        """
        heard = mask * self._sounding(mel)
        heard = torch.where(heard.sum(-1, keepdim=True) > 0, heard, mask)
        plain = (mel * self.bands.unsqueeze(-1)).float().clamp(FLOOR, 30.0)
        return (plain + heard.float().log()).logsumexp(-1) - heard.float().sum(-1).clamp(min=1).log()

    def scaled(self, mel: Tensor, level: Tensor) -> Tensor:
        """Log-mels (B, M, F) relative to a level (B, M), scaled to about zero mean and unit deviation."""
        return (mel * self.bands.unsqueeze(-1) - level.unsqueeze(-1)) / SPREAD + 1.0

    def _sounding(self, mel: Tensor) -> Tensor:
        """(B, 1, F): 0 where a frame is digital silence in every band."""
        return ((mel * self.bands.unsqueeze(-1)).amax(1, keepdim=True) > FLOOR + 0.1).to(mel.dtype)


def frame_mask(mel: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, 1, F) ones where a frame belongs to its clip."""
    if lengths is None:
        return mel.new_ones(mel.shape[0], 1, mel.shape[2])
    steps = torch.arange(mel.shape[2], device=mel.device)
    return (steps < lengths.to(mel.device).view(-1, 1, 1)).to(mel.dtype)
