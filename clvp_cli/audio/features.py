"""ClvpFeatureExtractor: the published class's interface over this package's log-mel.

Owns padding, truncation, masks and the preprocessor_config.json. Same results as transformers' class on good input;
where that one is silently wrong (stereo read as two clips, int16 left unscaled, NaN and empty audio accepted, a cut
without a word) this one raises AudioError or logs a notice. torch is loaded for return_tensors="pt" alone.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from clvp_cli.audio.clips import as_clips
from clvp_cli.audio.mel import PUBLISHED, MelConfig, log_mel, mel_filters, norm_column, published_mel_norms
from clvp_cli.audio.waveform import Samples
from clvp_cli.documents import read_json, short
from clvp_cli.errors import AudioError, ClvpError, ConfigError, OutputError
from clvp_cli.fields import Fields
from clvp_cli.locate import model_file

log = logging.getLogger(__name__)

CONFIG_NAME = "preprocessor_config.json"
PADDINGS: dict[Any, str] = {True: "longest", False: "do_not_pad", None: "do_not_pad"}
SETTINGS = (
    "feature_size",
    "sampling_rate",
    "default_audio_length",
    "hop_length",
    "chunk_length",
    "n_fft",
    "padding_value",
    "mel_norms",
    "return_attention_mask",
    "padding_side",
)


class BatchFeature(Fields):
    """What the extractor returns: a dict whose entries are attributes too."""

    def convert_to_tensors(self, tensor_type: Any = None) -> Self:
        """Stack each entry into one array: "np" or "pt"; None leaves it as it is.

        Raises:
            AudioError: another kind of tensor, or entries of unequal lengths.
        """
        kind = getattr(tensor_type, "value", tensor_type)
        if kind is None:
            return self
        if kind not in ("np", "pt"):
            raise AudioError(f"return_tensors={kind!r} is not offered", 'use "np", "pt" or None')
        for name, value in self.items():
            if len({np.shape(row) for row in value}) > 1:
                raise AudioError(f"{name}: clips of unequal lengths do not stack", 'pad them: padding="longest"')
            self[name] = np.stack(list(value))
        if kind == "pt":
            import torch

            self.update({name: torch.from_numpy(value) for name, value in self.items()})
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move tensors as `torch.Tensor.to` does; a dtype is applied to floating tensors only. Changes in place."""
        import torch

        for name, value in self.items():
            if isinstance(value, torch.Tensor):
                moved = value.to(*args, **kwargs)
                same_kind = moved.is_floating_point() == value.is_floating_point()
                self[name] = moved if same_kind else value.to(moved.device)
        return self


class ClvpFeatureExtractor:
    """Log-mel features of a reference voice, with the published arguments.

    Args:
        feature_size: mel bands.
        sampling_rate: Hz of the audio it is given.
        default_audio_length: seconds that clips are padded or cut to, unless a call says max_length.
        hop_length: samples from one frame to the next.
        chunk_length: kept for the configuration file; only n_samples and nb_max_frames follow from it.
        n_fft: samples of a window.
        padding_value: what padding is made of.
        mel_norms: `feature_size` divisors of the log-mels; None leaves them plain.
        return_attention_mask: whether a call that passes None for it gets a mask.
        padding_side: "right" or "left".
    """

    model_input_names = ("input_features", "attention_mask")

    def __init__(
        self,
        /,
        feature_size: int = 80,
        sampling_rate: int = 22050,
        default_audio_length: float = 6,
        hop_length: int = 256,
        chunk_length: int = 30,
        n_fft: int = 1024,
        padding_value: float = 0.0,
        mel_norms: npt.ArrayLike | None = None,
        return_attention_mask: bool = False,
        padding_side: str = "right",
        **kwargs: Any,
    ) -> None:
        if padding_side not in ("right", "left"):
            raise ConfigError(f"padding_side {short(padding_side)} is unknown", 'use "right" or "left"')
        self.feature_size = feature_size
        self.sampling_rate = sampling_rate
        self.default_audio_length = default_audio_length
        self.hop_length = hop_length
        self.chunk_length = chunk_length
        self.n_fft = n_fft
        self.padding_value = padding_value
        self.return_attention_mask = return_attention_mask
        self.padding_side = padding_side
        for name, least, most in (("chunk_length", 0, 3600), ("padding_value", -1e6, 1e6)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not least <= value <= most:
                raise ConfigError(f"{name} is {short(value)}", f"it is a number from {least:g} to {most:g}")
        norm_column(mel_norms, self.config.feature_size)
        self.mel_norms = None if mel_norms is None else np.asarray(mel_norms, dtype=np.float32).tolist()
        self.extra = kwargs  # keys of a configuration file that nothing here reads; written back by to_dict

    @property
    def config(self) -> MelConfig:
        """These settings as the log-mel takes them."""
        return MelConfig(
            feature_size=self.feature_size,
            sampling_rate=self.sampling_rate,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            min_frequency=PUBLISHED.min_frequency,
            max_frequency=PUBLISHED.max_frequency,
            default_audio_length=self.default_audio_length,
        )

    @property
    def n_samples(self) -> int:
        """Samples of chunk_length seconds."""
        return self.chunk_length * self.sampling_rate

    @property
    def nb_max_frames(self) -> int:
        """Frames of chunk_length seconds."""
        return self.n_samples // self.hop_length

    @property
    def mel_filters(self) -> npt.NDArray[np.float64]:
        """(bins, bands), as the published class keeps them."""
        return mel_filters(self.config).T

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        truncation: bool = True,
        pad_to_multiple_of: int | None = None,
        return_tensors: Any = None,
        return_attention_mask: bool | None = True,
        padding: bool | str | None = "max_length",
        max_length: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Log-mel features of one clip or several.

        Args:
            raw_speech: mono audio at `sampling_rate`: (n,) array or list of floats, or a list of those, or a (B, n)
                array, B other than 2. Integer arrays (uint8, int16, int32) are scaled to ±1.
            sampling_rate: the audio's rate; a wrong one is an error, an unstated one is taken to be right and logged.
            truncation: cut to max_length (and log it).
            pad_to_multiple_of: round max_length up to a multiple of this many samples.
            return_tensors: "np", "pt", or None for a list of arrays.
            padding: "max_length", "longest" (True) or "do_not_pad" (False).
            max_length: samples; default_audio_length seconds where None.
            **kwargs: ignored, as published: a processor passes the tokenizer's options along.

        Returns:
            input_features (B, 80, F) float32 and, where asked for, attention_mask (B, samples) int32, 1 for audio.

        Raises:
            AudioError (a ValueError): a wrong rate, stereo, empty, not finite, or an unknown option.
        """
        self._check_rate(sampling_rate)
        strategy = getattr(padding, "value", padding)  # an enum member of another library serves too
        strategy = PADDINGS.get(strategy, strategy)
        if strategy not in ("max_length", "longest", "do_not_pad"):
            raise AudioError(f"padding={padding!r} is unknown", 'use "max_length", "longest" or "do_not_pad"')
        length = round(self.default_audio_length * self.sampling_rate) if max_length is None else int(max_length)
        multiple = 1 if pad_to_multiple_of is None else int(pad_to_multiple_of)
        if length < 1 or multiple < 1:
            raise AudioError(f"max_length {length}, pad_to_multiple_of {multiple}: both must be positive")
        length = -(-length // multiple) * multiple

        clips = as_clips(raw_speech)
        if truncation:
            clips = [self._truncated(clip, length, index) for index, clip in enumerate(clips)]
        if strategy == "longest":
            length = -(-max(map(len, clips)) // multiple) * multiple
        target = 0 if strategy == "do_not_pad" else length
        padded = [self._padded(clip, target, self.padding_value) for clip in clips]
        features = BatchFeature(
            input_features=[log_mel(clip, mel_norms=self.mel_norms, config=self.config) for clip in padded]
        )
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            masks = [self._padded(np.ones(len(clip), np.int32), target, 0) for clip in clips]
            features["attention_mask"] = np.stack(masks) if len({len(mask) for mask in masks}) == 1 else masks
        return features.convert_to_tensors(return_tensors)

    def _check_rate(self, sampling_rate: int | None) -> None:
        if sampling_rate is None:
            log.warning("no sampling_rate was given: the audio is taken to be at %d Hz", self.sampling_rate)
        elif sampling_rate != self.sampling_rate:
            raise AudioError(
                f"audio at {sampling_rate} Hz, this feature extractor takes {self.sampling_rate} Hz",
                f"resample it, or read it with read_audio(path, sample_rate={self.sampling_rate})",
            )

    def _truncated(self, clip: Samples, length: int, index: int) -> Samples:
        if len(clip) > length:
            seconds = len(clip) / self.sampling_rate
            log.warning("clip %d: %.2f s, cut to its first %.2f s", index, seconds, length / self.sampling_rate)
        return clip[:length]

    def _padded(self, values: npt.NDArray[Any], length: int, value: float) -> npt.NDArray[Any]:
        missing = max(0, length - len(values))
        sides = (0, missing) if self.padding_side == "right" else (missing, 0)
        return np.pad(values, sides, constant_values=value)

    def to_dict(self) -> dict[str, Any]:
        """The content of a preprocessor_config.json."""
        derived = {"n_samples": self.n_samples, "nb_max_frames": self.nb_max_frames}
        settings = {name: getattr(self, name) for name in SETTINGS}
        return {**self.extra, **settings, **derived, "feature_extractor_type": type(self).__name__}

    def to_json_string(self) -> str:
        """The text of a preprocessor_config.json, keys sorted."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> list[str]:
        """Write preprocessor_config.json into a directory, made where missing; returns the path written."""
        path = Path(save_directory) / CONFIG_NAME
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.to_json_string(), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
        return [str(path)]

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], /, **kwargs: Any) -> Self:
        """Build from the content of a preprocessor_config.json; `kwargs` override it."""
        derived = ("n_samples", "nb_max_frames", "feature_extractor_type", "mel_filters")
        values = {**feature_extractor_dict, **kwargs}
        return cls(**{name: value for name, value in values.items() if name not in derived})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Read preprocessor_config.json: of a directory, "mini" or a hub id in the local cache, or that file itself."""
        path = model_file(pretrained_model_name_or_path, CONFIG_NAME)
        values = read_json(path)
        try:
            return cls.from_dict(values, **kwargs)
        except ClvpError as error:
            raise ConfigError(f"{path}: {error.message}", error.hint) from None


def load_extractor(directory: Path) -> ClvpFeatureExtractor:
    """A model directory's: its preprocessor_config.json to the letter (null norms are none), else as published."""
    if (directory / CONFIG_NAME).is_file():
        return ClvpFeatureExtractor.from_pretrained(directory)
    return ClvpFeatureExtractor(mel_norms=published_mel_norms())
