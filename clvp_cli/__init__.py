"""Best-of-N speech: generate speech candidates from a text and a voice, judge them with CLVP, keep the best.

`Clvp` is the whole in one object (pipeline.py). The classes of transformers' CLVP documentation are here under their
own names, with the same arguments and outputs. Every name is loaded when it is first used: the import alone loads
neither torch nor librosa.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing's, which is a large part of the time before the program can hear Ctrl-C
if TYPE_CHECKING:  # what a type checker reads of the names below
    import typing

    from .audio.features import ClvpFeatureExtractor as ClvpFeatureExtractor
    from .config import ClvpConfig as ClvpConfig
    from .config import ClvpDecoderConfig as ClvpDecoderConfig
    from .config import ClvpEncoderConfig as ClvpEncoderConfig
    from .errors import AudioError as AudioError
    from .errors import CandidateError as CandidateError
    from .errors import CheckpointError as CheckpointError
    from .errors import ClvpError as ClvpError
    from .errors import ConfigError as ConfigError
    from .errors import InputError as InputError
    from .errors import OutputError as OutputError
    from .errors import TextError as TextError
    from .errors import UsageError as UsageError
    from .pipeline import Clvp as Clvp
    from .published.conditioning import ClvpConditioningEncoder as ClvpConditioningEncoder
    from .published.decoder import ClvpDecoder as ClvpDecoder
    from .published.decoder import ClvpForCausalLM as ClvpForCausalLM
    from .published.decoder import ClvpModel as ClvpModel
    from .published.encoder import ClvpEncoder as ClvpEncoder
    from .published.generation_config import GenerationConfig as GenerationConfig
    from .published.model import ClvpModelForConditionalGeneration as ClvpModelForConditionalGeneration
    from .published.outputs import ClvpEncoderOutput as ClvpEncoderOutput
    from .published.outputs import ClvpOutput as ClvpOutput
    from .published.pretrained import ClvpPreTrainedModel as ClvpPreTrainedModel
    from .published.processor import ClvpProcessor as ClvpProcessor
    from .records import Candidate as Candidate
    from .records import Ranked as Ranked
    from .records import Scored as Scored
    from .settings import Settings as Settings
    from .settings import load_settings as load_settings
    from .text.tokenizer import ClvpTokenizer as ClvpTokenizer

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


def __getattr__(name: str) -> typing.Any:
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
