"""Best-of-N speech: generate speech candidates from a text and a voice, judge them with CLVP, keep the best.

`Clvp` is the whole in one object (pipeline.py). The classes of transformers' CLVP documentation are here under their
own names, with the same arguments and outputs. Every name is loaded when it is first used: the import alone loads
neither torch nor librosa.
"""

from __future__ import annotations

import importlib
from typing import Any

_PLACES: dict[str, tuple[str, ...]] = {
    "pipeline": ("Clvp",),
    "records": ("Candidate", "Ranked", "Scored"),
    "settings": ("Settings", "load_settings"),
    "errors": (
        *("ClvpError", "UsageError", "ConfigError", "InputError", "TextError", "AudioError", "CandidateError"),
        *("CheckpointError", "OutputError"),
    ),
    "config": ("ClvpConfig", "ClvpDecoderConfig", "ClvpEncoderConfig"),
    "text.tokenizer": ("ClvpTokenizer",),
    "audio.features": ("ClvpFeatureExtractor",),
    "published.processor": ("ClvpProcessor",),
    "published.pretrained": ("ClvpPreTrainedModel",),
    "published.encoder": ("ClvpEncoder",),
    "published.conditioning": ("ClvpConditioningEncoder",),
    "published.decoder": ("ClvpDecoder", "ClvpForCausalLM", "ClvpModel"),
    "published.model": ("ClvpModelForConditionalGeneration",),
    "published.outputs": ("ClvpEncoderOutput", "ClvpOutput"),
    "published.generation_config": ("GenerationConfig",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("clvp")
        except PackageNotFoundError:  # a checkout that is not installed
            return "0+unknown"
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
