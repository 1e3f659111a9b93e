"""ClvpProcessor: feature extractor and tokenizer as one. Torch-free until tensors are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from ..audio.features import BatchFeature, ClvpFeatureExtractor, load_extractor
from ..errors import ConfigError, InputError
from ..locate import model_path
from ..text.encoding import BatchEncoding
from ..text.saving import has_vocabulary
from ..text.tokenizer import ClvpTokenizer, load_tokenizer


class ClvpProcessor:
    """Wraps a `ClvpFeatureExtractor` and a `ClvpTokenizer`."""

    feature_extractor_class = "ClvpFeatureExtractor"
    tokenizer_class = "ClvpTokenizer"
    attributes = ("feature_extractor", "tokenizer")
    model_input_names = ("input_ids", "input_features", "attention_mask")

    def __init__(self, feature_extractor: ClvpFeatureExtractor, tokenizer: ClvpTokenizer) -> None:
        for given, wanted in ((feature_extractor, ClvpFeatureExtractor), (tokenizer, ClvpTokenizer)):
            if not isinstance(given, wanted):
                raise ConfigError(f"ClvpProcessor takes a {wanted.__name__}, not a {type(given).__name__}")
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer

    def __call__(
        self, raw_speech: Any = None, sampling_rate: int | None = None, text: Any = None, **kwargs: Any
    ) -> BatchFeature | BatchEncoding:
        """Audio, text or both → the model's inputs.

        Args:
            raw_speech, sampling_rate: as `ClvpFeatureExtractor.__call__` takes them. (The published processor drops
                positional arguments; here they count.)
            text: as `ClvpTokenizer.__call__` takes it.
            kwargs: go to both, as published: return_tensors, padding, truncation, max_length, ….

        Returns:
            input_features (B, 80, F) with audio, input_ids (B, S) with text, and attention_mask: that of the text
            where there is one, else the audio's.

        Raises:
            InputError (a ValueError): neither audio nor text.
        """
        if raw_speech is None and text is None:
            raise InputError("raw_speech, text or both are needed")
        if raw_speech is None:
            return self.tokenizer(text, **kwargs)
        inputs = self.feature_extractor(raw_speech, sampling_rate=sampling_rate, **kwargs)
        if text is not None:
            encodings = self.tokenizer(text, **kwargs)
            inputs["input_ids"] = encodings["input_ids"]
            inputs["attention_mask"] = encodings["attention_mask"]
        return inputs

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        """As `ClvpTokenizer.batch_decode`."""
        return self.tokenizer.batch_decode(*args, **kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> str:
        """As `ClvpTokenizer.decode`."""
        return self.tokenizer.decode(*args, **kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> list[str]:
        """Write the files of both into a directory, made where missing; returns their paths."""
        return [
            *self.feature_extractor.save_pretrained(save_directory),
            *self.tokenizer.save_pretrained(save_directory),
        ]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Both from a model directory, "mini" or a hub id in the local cache; kwargs go to the tokenizer.

        A directory without tokenizer files, as Tortoise's, gets the published vocabulary, and one without a
        preprocessor_config.json the published settings and mel norms.
        """
        path = model_path(pretrained_model_name_or_path)
        directory = path if path.is_dir() else path.parent
        if has_vocabulary(directory):
            tokenizer = ClvpTokenizer.from_pretrained(directory, **kwargs)
        else:
            tokenizer = load_tokenizer(None, **kwargs)
        return cls(load_extractor(directory), tokenizer)
