"""The sizes that a training file gives to what is made from nothing: known keys, and numbers that a network can have.

Owns which sections there are. Knows nothing of weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from ..config import ClvpConfig, ClvpDecoderConfig, ClvpEncoderConfig
from ..errors import ClvpError, ConfigError
from ..model.alignment import AlignmentConfig
from ..model.codec import CodecConfig
from .config import nearest
from .phones import PhoneConfig

SECTIONS: dict[str, Any] = {
    "text_config": ClvpEncoderConfig,
    "speech_config": ClvpEncoderConfig,
    "decoder_config": ClvpDecoderConfig,
    "codec": CodecConfig,
    "alignment": AlignmentConfig,
    "phones": PhoneConfig,
}
LARGEST = 2**24


def check_sizes(sizes: Mapping[str, Any]) -> None:
    """ConfigError for a key of `model` that is not known, a section that is no mapping, a value that cannot be one."""
    whole = _kinds(ClvpConfig)
    for name, value in sizes.items():
        if name not in SECTIONS:
            _check(name, value, whole, "model.")
        elif not isinstance(value, Mapping):
            raise ConfigError(f"model.{name}: a mapping is expected, found {type(value).__name__}")
        else:
            kinds = _kinds(SECTIONS[name])
            for key, inner in value.items():
                _check(key, inner, kinds, f"model.{name}.")


def _kinds(config: Any) -> dict[str, str]:
    return {f.name: str(f.type) for f in fields(config) if f.name != "extra"}


def _check(key: Any, value: Any, kinds: Mapping[str, str], prefix: str) -> None:
    """One key and its value; what is of the wrong type beyond this the configurations themselves tell."""
    name = f"{prefix}{key}"[:80]
    if key not in kinds:
        raise ConfigError(f"unknown key {name!r}", nearest(str(key), kinds, prefix))
    if kinds[key] == "bool" and not isinstance(value, bool):
        raise ConfigError(f"{name} is no switch", "true or false is expected")
    if isinstance(value, int | float) and not (abs(value) <= LARGEST and math.isfinite(value)):
        raise ConfigError(f"{name} is no size that a network can have", f"it must be below {LARGEST:,}")


@contextmanager
def sized(what: str) -> Iterator[None]:
    """Turn the faults of making a network within into a ConfigError: its sizes do not go together."""
    try:
        yield
    except ClvpError:
        raise
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"model: no {what} has these sizes: {reason}", "compare them with configs/mini/") from None
