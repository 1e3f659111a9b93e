"""The lazily loaded model that every command shares: each part is read from the checkpoint when first asked for.

Owns which device and precision a model runs in, and which signals it offers. Scoring never loads the decoder;
generating never loads the encoders. Knows nothing of commands.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .config import ClvpConfig, ClvpEncoderConfig
from .errors import CheckpointError, UsageError
from .io.candidates import CodeBook
from .ranking import parse_rank_by
from .settings import Settings

if TYPE_CHECKING:
    import torch

    from .audio.features import ClvpFeatureExtractor
    from .audio.mel import MelConfig
    from .checkpoints.checkpoint import Checkpoint
    from .model.codec import Codec
    from .model.conditioning import ConditioningEncoder
    from .model.decoder import CodeDecoder
    from .model.encoder import Encoder
    from .model.precision import Precision
    from .model.random_voice import RandomVoice
    from .signals import Signal
    from .signals.clvp import ClvpSignal
    from .signals.speech import SpeechReader
    from .text.tokenizer import ClvpTokenizer

log = logging.getLogger("clvp")
M = TypeVar("M", bound="torch.nn.Module")


class Core:
    """One checkpoint under one set of settings."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings = path, settings

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """What the model's files hold, checked against its configuration."""
        from .checkpoints.load import open_checkpoint

        return open_checkpoint(self.path)

    @property
    def name(self) -> str:
        """What records call the model."""
        return self.path.resolve().name

    @property
    def directory(self) -> Path:
        """Where the files beside the weights lie, also where the model was named by one of its files."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def config(self) -> ClvpConfig:
        """The shapes of the model."""
        return self.checkpoint.config

    @cached_property
    def book(self) -> CodeBook:
        """The codes that a candidate file may hold: what the speech encoder reads, or what the decoder says, if more.

        Scoring names the row of a code that only the decoder knows.
        """
        decoder = self.config.decoder_config
        start, stop = decoder.bos_token_id, decoder.eos_token_id
        return CodeBook(max(self.config.speech_config.vocab_size, min(start, stop)), start, stop)

    @cached_property
    def tokenizer(self) -> ClvpTokenizer:
        """The model's own vocabulary, or the published one."""
        from .text.tokenizer import load_tokenizer

        text = self.settings.text
        return load_tokenizer(self.directory, normalizer=text.normalizer, scheme=text.tokenizer)

    @cached_property
    def extractor(self) -> ClvpFeatureExtractor:
        """How the model hears."""
        from .audio.features import load_extractor

        return load_extractor(self.directory)

    @property
    def mel_norms(self) -> NDArray[np.float32] | None:
        """The norms that log-mels are divided by (80,); None leaves them plain."""
        norms = self.extractor.mel_norms
        return None if norms is None else np.asarray(norms, dtype=np.float32)

    @cached_property
    def mel_config(self) -> MelConfig:
        """How audio becomes log-mel: the model's way, in windows of the settings' length or the model's own."""
        seconds = self.settings.voice.seconds
        config = self.extractor.config
        return config if seconds == "auto" else dataclasses.replace(config, default_audio_length=float(seconds))

    @cached_property
    def device(self) -> torch.device:
        """The device asked for, or the best there is."""
        return pick_device(self.settings.device)

    @cached_property
    def precision(self) -> Precision:
        """The arithmetic that speaks: what was asked for, or what suits the machine and the model's size.

        Greedy codes and beams are compared to the code with other systems': left to us, they run in float32.
        """
        sampling, name = self.settings.sampling, self.settings.dtype
        if name == "auto" and (sampling.greedy or sampling.beams > 1):
            name = "float32"
        chosen = self._arithmetic(name)
        if name == "auto" and chosen.name != "float32":
            log.info("sampling in %s (--dtype float32 for full precision)", chosen.name)
        return chosen

    @cached_property
    def judging(self) -> Precision:
        """The arithmetic that judges: what was asked for, or float32, for scores are compared across machines."""
        return self._arithmetic("float32" if self.settings.dtype == "auto" else self.settings.dtype)

    def _arithmetic(self, name: str) -> Precision:
        from .checkpoints.rounded import is_rounded
        from .model.precision import precision
        from .model.products import can_pack

        if name == "auto" and is_rounded(self.checkpoint.tensors) and can_pack(self.device):
            name = "int8"  # the weights have no more
        return precision(name, self.device, sum(t.numel for t in self.checkpoint.tensors.values()))

    @property
    def dtype(self) -> torch.dtype:
        """The type that activations have in the speaking parts."""
        return self.precision.dtype

    @cached_property
    def conditioning(self) -> ConditioningEncoder:
        """Voice and text → prefix."""
        from .model.conditioning import ConditioningEncoder

        return self._part("conditioning", ConditioningEncoder, self.config)

    @cached_property
    def decoder(self) -> CodeDecoder:
        """Prefix → codes."""
        from .model.decoder import CodeDecoder
        from .model.packed import pack_decoder

        packing = self.precision.kind, self.precision.dtype
        return pack_decoder(self._part("decoder", CodeDecoder, self.config.decoder_config, mapped=True), *packing)

    @cached_property
    def text_encoder(self) -> Encoder:
        """Ids → vector."""
        return self._encoder("text", self.config.text_config)

    @cached_property
    def speech_encoder(self) -> Encoder:
        """Codes → vector."""
        return self._encoder("speech", self.config.speech_config)

    @cached_property
    def reader(self) -> SpeechReader:
        """Candidates → what the speech encoder hears."""
        from .signals.speech import SpeechReader

        pad, batch_size = self.settings.scoring.pad, self.settings.batch_size
        return SpeechReader(self.speech_encoder, self.config.decoder_config, pad=pad, batch_size=batch_size)

    @cached_property
    def clvp(self) -> ClvpSignal:
        """The cosine of text and speech."""
        from .signals.clvp import ClvpSignal

        scale = self.checkpoint.state(["logit_scale"])["logit_scale"]
        return ClvpSignal(self.text_encoder, self.speech_encoder, scale)

    @cached_property
    def signals(self) -> list[Signal]:
        """Everything this model can judge by, the CLVP logit first."""
        if "alignment" not in self.checkpoint.extras:
            return [self.clvp]
        from .model.alignment import AlignmentConfig, AlignmentHead
        from .signals.alignment import AlignmentSignal

        return [self.clvp, AlignmentSignal(self.extra("alignment", AlignmentHead, AlignmentConfig))]

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The names of `signals`, without loading them."""
        return ("clvp", "alignment") if "alignment" in self.checkpoint.extras else ("clvp",)

    @cached_property
    def rank_weights(self) -> dict[str, float]:
        """What the order follows: the settings' choice, or else the model's own, or else the CLVP logit."""
        chosen = self.settings.scoring.rank_by
        return parse_rank_by(str(self.config.extra.get("rank_by", "clvp")) if chosen == "auto" else chosen)

    @cached_property
    def codec(self) -> Codec:
        """Audio ↔ codes, where the model has a codec."""
        from .model.codec import Codec, CodecConfig

        return self.extra("codec", Codec, CodecConfig, "use -m mini, or put Tortoise's dvae.pth beside the weights")

    @cached_property
    def random_voices(self) -> RandomVoice:
        """Noise → voice vector, where the model has such a part."""
        from .model.random_voice import RandomVoice, RandomVoiceConfig

        return self.extra(
            "random_voice", RandomVoice, RandomVoiceConfig, "put Tortoise's rlg_auto.pth beside the weights"
        )

    def extra(self, name: str, kind: Callable[[Any], M], config: Any, hint: str = "") -> M:
        """A model beside the main one, filled strictly; CheckpointError with `hint` where there is none."""
        import torch

        from .checkpoints.modules import build_empty, load_module

        found = self.checkpoint.extras.get(name)
        if found is None:
            raise CheckpointError(f"{self.path}: this model has no {name.replace('_', ' ')}", hint or None)
        module = build_empty(lambda: kind(config.from_dict(dict(found.config))))
        load_module(module, found.state(), torch.float32, str(self.device), where=str(found.path))
        return module

    def _encoder(self, part: str, config: ClvpEncoderConfig) -> Encoder:
        from .model.encoder import Encoder
        from .model.packed_encoder import pack_encoder

        if self.settings.scoring.rms_norm == "clamp":
            config = dataclasses.replace(config, rms_norm="clamp")
        packing = self.judging.kind, self.judging.dtype
        return pack_encoder(self._part(part, Encoder, config, mapped=True), *packing)

    def _part(self, part: str, kind: Callable[[Any], M], config: Any, *, mapped: bool = False) -> M:
        """A part with its weights: cast, or `mapped` as they are in the file, for packing to cast them one by one."""
        from .checkpoints.layout import PARTS
        from .checkpoints.modules import build_empty

        log.debug("loading the %s of %s", part, self.path)
        module = build_empty(lambda: kind(config))
        dtype = None if mapped else self.dtype
        self.checkpoint.load_into(module, PARTS[part], dtype, str(self.device), keep_rounded=mapped)
        return module


def pick_device(name: str) -> torch.device:
    """A torch device by name; "auto" takes CUDA, then Apple's, then the CPU. UsageError for one that is not there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r} is not known", "use auto, cpu, cuda or mps") from None
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, device.type == "cpu"):
        raise UsageError(f"device {name!r} is not on this machine", "use --device auto")
    return device
