"""Training the decoder with its conditioning encoder: text and a voice → the next code.

The voice is a clip of the speaker other than the one to be said wherever there is one, so that it tells who speaks and
not what is said. Owns the decoder's batches and loss; knows nothing of the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ..model.conditioning import ConditioningEncoder
from ..model.decoder import CodeDecoder
from ..model.layers import MaskedAttend, Trace
from . import losses
from .alignment import CodedClips, scramble
from .features import partners
from .guide import ALIGNED_WIDTH, DIAGONAL_WIDTH, Floats, attention_loss, diagonal, windows
from .phones import text_places, word_spans
from .recogniser import Teller, padded
from .workshop import Workshop

SLOTS = 2  # phones that a code tells: one for each two of its four frames


class DecoderTask:
    """Prefix and codes so far → the next code; the stop code is an ordinary class."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop, self.settings = workshop, workshop.config.decoder
        self.data = CodedClips(workshop)
        if workshop.lay_phones(self.data.clips) is None and self.settings.phones:
            raise ConfigError("decoder.phones needs data.phones", "clvp train phones makes a recogniser")
        self.partners = partners(self.data.clips)
        mute = next((clip for clip, others in zip(self.data.clips, self.partners, strict=True) if not others), None)
        if mute is not None:
            raise InputError(f"no audio of speaker {mute.speaker!r}", "the decoder learns voices from audio clips")
        config = self.config = workshop.model_config
        self.conditioning = workshop.part("conditioning", lambda: ConditioningEncoder(config))
        self.decoder = workshop.part("decoder", lambda: CodeDecoder(config.decoder_config))
        self._check()
        if not workshop.has_part("decoder"):
            workshop.seed_embedding(self.decoder.stack.input_embeds_layer.weight, 0.5)
            workshop.seed_embedding(self.decoder.lm_head.weight, 0.5)
        self.module: nn.Module = nn.ModuleDict({"conditioning": self.conditioning, "decoder": self.decoder})
        self.teller: Teller | None = None
        if self.settings.phones:
            self.teller = Teller(config.decoder_config.hidden_size, SLOTS).to(workshop.device)
            self.module["teller"] = self.teller

    def _check(self) -> None:
        """InputError or ConfigError now for what would end the run when its clip is drawn."""
        sizes, data, features = self.config.decoder_config, self.workshop.config.data, self.workshop.features
        if max(sizes.bos_token_id, sizes.eos_token_id) >= sizes.vocab_size:
            raise ConfigError("model.decoder_config: start and stop code are beyond vocab_size", "codes + 2 is usual")
        if self.settings.guide and self.settings.guide_first >= sizes.num_hidden_layers:
            raise ConfigError(
                f"decoder.guide_first is {self.settings.guide_first}",
                f"the decoder has {sizes.num_hidden_layers} layers",
            )
        self.data.check(sizes.bos_token_id, self.conditioning.text_token_embedding.num_embeddings)
        for clip in self.data.clips:
            codes, ids = max(len(features.codes(clip, n)) for n in range(data.variants)), len(clip.ids)
            if codes >= sizes.max_position_embeddings or ids + 3 > sizes.max_text_tokens:
                raise InputError(
                    f"{data.manifest}: {clip.text[:30]!r} has {codes} codes and {ids} ids: the decoder takes "
                    f"{sizes.max_position_embeddings - 1} and {sizes.max_text_tokens - 3}",
                    "leave it out, or lower data.max_seconds",
                )

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Next-code loss of a batch; beside it that of its phones, and of where the attention looks."""
        places, rng = self.data.batch(step)
        settings = self.settings
        weight = settings.guide * max(0.0, 1 - step / max(1, settings.guide_steps))
        trace = Trace.wanted(hidden_states=False, attentions=True) if weight else None
        prefix, kept = self._prefix(places, rng)
        loss, hidden = self._next_code(places, prefix, kept, trace)
        figures = {"next_code": float(loss.detach())}
        if self.teller is not None:
            told = self._told(places, hidden)
            loss, figures["phones"] = loss + settings.phones * told, float(told.detach())
        if trace is not None:
            guided = self._guided(places, prefix.shape[1], trace)
            loss, figures["guide"] = loss + weight * guided, float(guided.detach())
        return loss, figures

    def _told(self, places: Sequence[int], hidden: Tensor) -> Tensor:
        """How badly the hidden states (B, T, D) tell the phones of the codes that come next."""
        assert self.teller is not None
        labels = [self.workshop.features.labels(self.data.clips[place]) for place in places]
        return self.teller.loss(hidden, padded(labels, SLOTS * hidden.shape[1]))

    def _guided(self, places: Sequence[int], prefix: int, trace: Trace) -> Tensor:
        """How far the guided heads look from where in the text the next code is."""
        known = [self._where(place) for place in places]
        near = windows([p for p, _ in known], [w for _, w in known], prefix, first=2).to(self.workshop.device)
        counts = near.amax(-1) > 0  # (B, T)
        weights = [a[:, : self.settings.guide_heads, prefix:, :prefix] for a in trace.attentions or ()]
        return torch.stack([attention_loss(a, near, counts) for a in weights]).mean()

    def _where(self, place: int) -> tuple[Floats, float]:
        """For a clip, the id that each code and the stop say (T + 1,), and how many ids beside it count as right.

        As the clip's phones are laid along it, else by the diagonal.
        """
        clip, count = self.data.clips[place], self.data.lengths[place] - 1
        laid, spans, ids = self.workshop.features.places(clip), word_spans(clip.ids), len(clip.ids)
        if laid is None or not spans:
            where, width = diagonal(count, ids), max(1.0, DIAGONAL_WIDTH * ids)
        else:
            where, width = text_places(laid, clip.phones, spans, count), ALIGNED_WIDTH
        return np.append(where, np.float32(ids)), width

    def _next_code(
        self, places: Sequence[int], prefix: Tensor, kept: Tensor, trace: Trace | None
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the hidden states (B, T, D) that predict the codes and the stop."""
        decoder = self.config.decoder_config
        rows = [torch.from_numpy(codes) for codes in self.data.codes(places)]
        device = self.workshop.device
        start, stop = torch.tensor([decoder.bos_token_id]), torch.tensor([decoder.eos_token_id])
        pad = nn.utils.rnn.pad_sequence
        codes = pad([torch.cat((start, row)) for row in rows], batch_first=True).to(device)
        targets = pad([torch.cat((row, stop)) for row in rows], batch_first=True, padding_value=losses.IGNORED).to(
            device
        )
        known = targets != losses.IGNORED
        if self.decoder.training:
            said = scramble(codes[:, 1:], self.settings.dropout, decoder.bos_token_id)
            codes = torch.cat((codes[:, :1], said), dim=1)
        hidden = self._teacher_forced(prefix, kept, codes, trace)
        return losses.next_code(self.decoder.logits(hidden[known]), targets[known]), hidden

    def _prefix(self, places: Sequence[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """[voice | begin, ids, 0, 0] of each clip (B, P, D), padded on the left of the codes, and what counts (B, P).

        The prompt ends in the closing 0 that tokenised prompts carry and the stop that the conditioning adds.
        """
        texts = [torch.tensor([*ids, 0]) for ids in self.data.texts(places)]
        lengths = torch.tensor([len(text) for text in texts])
        ids = nn.utils.rnn.pad_sequence(texts, batch_first=True).to(self.workshop.device)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(self.workshop.device)
        text, text_mask = self.conditioning.text(ids, mask)
        chosen = self._voices_of(places, rng)
        unique = sorted(set(chosen))
        mels = np.stack([self.workshop.features.voice(self.data.clips[i], self.settings.voice_frames) for i in unique])
        voices = voice_vectors(self.conditioning, torch.from_numpy(mels).to(self.workshop.device))
        voice = voices[torch.tensor([unique.index(i) for i in chosen], device=voices.device)].unsqueeze(1)
        kept = torch.cat((torch.ones_like(text_mask[:, :1]), text_mask), dim=1)
        return torch.cat((voice.to(text.dtype), text), dim=1), kept

    def _voices_of(self, places: Sequence[int], rng: np.random.Generator) -> list[int]:
        """The place of a voice for each clip: one clip of its speaker for all of a speaker's clips in the batch, since
        a voice is many more frames than its text is ids; now and then the clip itself."""
        shared: dict[str, int] = {}
        chosen = []
        for place in places:
            others = self.partners[place]
            own = place in others and rng.random() >= self.settings.other_clip
            pick = others[int(rng.integers(len(others)))]
            chosen.append(place if own else shared.setdefault(self.data.clips[place].speaker, pick))
        return chosen

    def _teacher_forced(self, prefix: Tensor, kept: Tensor, codes: Tensor, trace: Trace | None) -> Tensor:
        """As CodeDecoder.teacher_forced, with the pads between a short text and its codes hidden: a row is as alone."""
        positions = torch.arange(codes.shape[1], device=codes.device).unsqueeze(0)
        stack = self.decoder.stack
        embeds = torch.cat((prefix, stack.embed(codes, positions).to(prefix.dtype)), dim=1)
        seen = torch.cat((kept.bool(), torch.ones_like(codes, dtype=torch.bool)), dim=1)  # (B, P + T)
        length = seen.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=codes.device).tril()
        allowed = (causal & seen[:, None, None, :]) | torch.eye(length, dtype=torch.bool, device=codes.device)
        mask = torch.zeros(allowed.shape, dtype=torch.float32, device=codes.device)
        mask = mask.masked_fill(~allowed, torch.finfo(torch.float32).min)
        if torch.is_autocast_enabled(codes.device.type):
            mask = mask.to(torch.get_autocast_dtype(codes.device.type))
        dropout = self.config.decoder_config.attention_dropout if self.decoder.training else 0.0
        plain = MaskedAttend(mask, dropout=dropout)
        shown = MaskedAttend(mask, dropout=dropout, trace=trace or Trace())
        first = self.settings.guide_first
        layers = range(first, first + self.settings.guide_layers)
        return stack.hidden(embeds, lambda n: shown if n in layers else plain)[:, prefix.shape[1] :]

    def after_step(self, step: int) -> None:
        """Nothing."""

    def held_out(self, batches: int) -> dict[str, float]:
        """Next-code loss on held-out clips."""
        if self.data.evaluation is None:
            return {}
        each = []
        for places, rng in (self.data.evaluation(number) for number in range(batches)):
            each.append(float(self._next_code(places, *self._prefix(places, rng), None)[0]))
        return {"loss": float(np.mean(each))}

    def export(self, path: Path) -> None:
        """The model with this decoder."""
        self.workshop.save(path, {"conditioning": self.conditioning, "decoder": self.decoder}, {})


def voice_vectors(conditioning: ConditioningEncoder, mels: Tensor) -> Tensor:
    """ConditioningEncoder.voice (B, 80, F) → (B, D), the last block for frame 0 alone: no other frame is read there."""
    dropout = conditioning.decoder_config.attention_dropout if conditioning.training else 0.0
    x = conditioning.mel_conv(mels)  # (B, D, F)
    blocks = list(zip(conditioning.group_norms, conditioning.mel_attn_blocks, strict=True))
    for norm, block in blocks[:-1]:
        x = x + block(norm(x).transpose(1, 2), MaskedAttend(dropout=dropout)).transpose(1, 2)
    norm, last = blocks[-1]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return MaskedAttend(dropout=dropout)(q[:, :, :1], k, v)

    out: Tensor = x[:, :, 0] + last(norm(x).transpose(1, 2), attend)[:, 0]
    return out
