"""The shapes of the models: frozen dataclasses that read and write the published config.json.

Owns the names and defaults of the published configuration classes. Knows nothing of weights, settings of a run,
or the command line. Unknown keys of a config.json are kept in `extra` and written back: real files carry some.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from .documents import read_json, short
from .errors import ConfigError
from .locate import CONFIG_NAME, model_file

MAX_SIZE = 2**24  # no width or vocabulary is near it; what is built from a larger one would fill the memory
MAX_LAYERS = 1000
DEPTHS = ("layers", "blocks")  # how the names of what counts layers end
MAX_NUMBER = 1e30  # of what is no size


def check_size(owner: str, name: str, value: object, least: int = 0, most: int | None = None) -> None:
    """Raise ConfigError unless `value` is a whole number that a model could have as its size or number of layers."""
    if most is None:
        most = MAX_LAYERS if name.endswith(DEPTHS) else MAX_SIZE
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        wanted = f"a whole number from {least} to {most:,}"
        raise ConfigError(f"{owner}{name}: {wanted} is expected, found {short(value)}")


def _part(loaded: dict[str, Any], name: str) -> dict[str, Any]:
    """The part of that name of a whole model's configuration; what is no whole model's is the part itself."""
    part = loaded.get(name, {}) if loaded.get("model_type") == "clvp" else loaded
    if not isinstance(part, dict):
        raise ConfigError(f"{name} is no JSON object", "the config.json of a CLVP holds one for each part")
    return part


@dataclass(frozen=True, init=False)
class PublishedConfig:
    """Common to the published configuration classes: keyword arguments, unknown ones kept in `extra`."""

    model_type: ClassVar[str] = ""
    extra: dict[str, Any] = field(default_factory=dict, repr=False, kw_only=True)

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        names = [f for f in fields(self) if f.name != "extra"]
        if len(args) > len(names):
            raise TypeError(f"{type(self).__name__} takes at most {len(names)} positional arguments, got {len(args)}")
        given = {f.name: value for f, value in zip(names, args, strict=False)}
        extra = kwargs.pop("extra", {})
        if not isinstance(extra, Mapping):
            raise ConfigError(f"{type(self).__name__}.extra: a mapping is expected, found {short(extra)}")
        extra = dict(extra)
        for name, value in kwargs.items():
            (given if any(f.name == name for f in names) else extra)[name] = value
        for f in names:
            default = f.default_factory() if callable(f.default_factory) else f.default
            object.__setattr__(self, f.name, given.get(f.name, default))
        extra.pop("model_type", None)
        object.__setattr__(self, "extra", extra)
        self.__post_init__()

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        """Raise ConfigError where a value cannot be: sizes are whole numbers of a model's order, others are finite."""
        for f in fields(self):
            value, owner = getattr(self, f.name), f"{type(self).__name__}."
            if f.type == "int" or (f.type == "int | None" and value is not None):
                told_later = sys.maxsize if f.name.endswith(DEPTHS) else None  # against the weights that are there
                check_size(owner, f.name, value, -1 if f.name == "pad_token_id" else 0, told_later)
            if "drop" in f.name and not 0 <= value <= 1:
                raise ConfigError(f"{owner}{f.name}: a share from 0 to 1 is expected, found {short(value)}")
            if f.type == "bool" and not (value is None or isinstance(value, int)):
                raise ConfigError(f"{owner}{f.name}: true or false is expected, found {short(value)}")
            if f.type == "str" and not isinstance(value, str):
                raise ConfigError(f"{owner}{f.name}: a word is expected, found {short(value)}")
            if f.type == "float" and (
                isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER
            ):
                raise ConfigError(f"{owner}{f.name}: a number is expected, found {short(value)}")

    def check_depth(self) -> None:
        """Raise ConfigError for more layers than a model has: before it is built, where no weights tell how many."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, PublishedConfig):
                value.check_depth()
            elif f.name.endswith(DEPTHS):
                check_size(f"{type(self).__name__}.", f.name, value)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Self:
        """Build from the content of a config.json; `kwargs` override it."""
        return cls(**{**config_dict, **kwargs})

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        plain = {name: v.to_dict() if isinstance(v, PublishedConfig) else v for name, v in values.items()}
        return {**self.extra, **plain, "model_type": self.model_type}

    def to_json_string(self) -> str:
        """The text of a config.json, keys sorted."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, default=list) + "\n"

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write config.json into `save_directory`, which is made where it is missing."""
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / CONFIG_NAME).write_text(self.to_json_string(), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Read a model's config.json: of a directory, "mini" or a hub id in the local cache, or that file itself."""
        return cls.from_dict(read_json(model_file(pretrained_model_name_or_path, CONFIG_NAME)), **kwargs)


@dataclass(frozen=True, init=False)
class ClvpEncoderConfig(PublishedConfig):
    """One CLVP encoder, text or speech. Defaults are those of the published class."""

    model_type: ClassVar[str] = "clvp_encoder"
    vocab_size: int = 256
    hidden_size: int = 768
    intermediate_size: int = 1536
    projection_dim: int = 768
    num_hidden_layers: int = 20
    num_attention_heads: int = 12
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.1
    dropout: float = 0.1
    use_rotary_embedding: bool = True
    use_attention_bias: bool = False
    summary_type: str = "mean"  # mean | last | first | cls_index
    initializer_factor: float = 1.0
    bos_token_id: int = 255
    eos_token_id: int = 0
    pad_token_id: int | None = None
    rms_norm: str = "rsqrt"  # rsqrt: x·rsqrt(mean x² + 1e-5); clamp: Tortoise's x / max(rms, 1e-8)

    def __post_init__(self) -> None:
        self._check()
        _check_heads(type(self).__name__, self.hidden_size, self.num_attention_heads)
        if self.summary_type not in ("mean", "last", "first", "cls_index"):
            raise ConfigError(f"summary_type {short(self.summary_type)}: mean, last, first or cls_index is expected")

    @property
    def rotary_dim(self) -> int:
        """How many leading dimensions of each head are rotated: max(projection_dim // (2 · heads), 32)."""
        return max(self.projection_dim // (self.num_attention_heads * 2), 32)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, config_type: str = "text_config", **kwargs: Any
    ) -> Self:
        """Read one encoder's part ("text_config" or "speech_config") of a CLVP config.json, or a config of its own."""
        if config_type not in ("text_config", "speech_config"):
            raise ConfigError(f"config_type {config_type!r}: text_config or speech_config is expected")
        loaded = read_json(model_file(pretrained_model_name_or_path, CONFIG_NAME))
        return cls.from_dict(_part(loaded, config_type), **kwargs)


@dataclass(frozen=True, init=False)
class ClvpDecoderConfig(PublishedConfig):
    """The autoregressive decoder with its conditioning encoder. Defaults are those of the published class."""

    model_type: ClassVar[str] = "clvp_decoder"
    vocab_size: int = 8194
    max_position_embeddings: int = 608
    max_text_tokens: int = 404
    hidden_size: int = 1024
    num_hidden_layers: int = 30
    num_attention_heads: int = 16
    n_inner: int | None = None  # None: 4 · hidden_size
    num_mel_attn_blocks: int = 6
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    summary_type: str = "cls_index"  # this and the next four: carried, without effect
    summary_use_proj: bool = True
    summary_activation: str | None = None
    summary_proj_to_labels: bool = True
    summary_first_dropout: float = 0.1
    use_cache: bool = True
    bos_token_id: int = 8192
    eos_token_id: int = 8193
    feature_size: int = 80
    use_attention_bias: bool = True
    initializer_factor: float = 1.0
    decoder_fixing_codes: list[int] = field(default_factory=lambda: [83, 45, 45, 248])
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        self._check()
        _check_heads(type(self).__name__, self.hidden_size, self.num_attention_heads)
        codes = self.decoder_fixing_codes
        if not isinstance(codes, list | tuple) or len(codes) != 4 or not all(isinstance(c, int) for c in codes):
            raise ConfigError(f"decoder_fixing_codes: four codes are expected, found {short(codes)}")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Read the decoder's part of a CLVP config.json, or a config of its own."""
        loaded = read_json(model_file(pretrained_model_name_or_path, CONFIG_NAME))
        return cls.from_dict(_part(loaded, "decoder_config"), **kwargs)


@dataclass(frozen=True, init=False)
class ClvpConfig(PublishedConfig):
    """The whole model: text encoder, speech encoder, decoder. Parts may be dicts, as in the published class."""

    model_type: ClassVar[str] = "clvp"
    text_config: ClvpEncoderConfig = field(default_factory=ClvpEncoderConfig)
    speech_config: ClvpEncoderConfig = field(default_factory=ClvpEncoderConfig)
    decoder_config: ClvpDecoderConfig = field(default_factory=ClvpDecoderConfig)
    projection_dim: int = 768
    logit_scale_init_value: float = 2.6592
    initializer_factor: float = 1.0

    def __post_init__(self) -> None:
        parts: dict[str, type[PublishedConfig]] = {
            "text_config": ClvpEncoderConfig,
            "speech_config": ClvpEncoderConfig,
            "decoder_config": ClvpDecoderConfig,
        }
        for name, kind in parts.items():
            value = getattr(self, name)
            if value is None or isinstance(value, dict):
                object.__setattr__(self, name, kind.from_dict(value or {}))
            elif not isinstance(value, kind):
                raise ConfigError(f"{name}: a mapping or a {kind.__name__} is expected, found {type(value).__name__}")
        self._check()

    @classmethod
    def from_sub_model_configs(
        cls,
        text_config: ClvpEncoderConfig,
        speech_config: ClvpEncoderConfig,
        decoder_config: ClvpDecoderConfig,
        **kwargs: Any,
    ) -> Self:
        """Put three configurations together."""
        return cls(text_config=text_config, speech_config=speech_config, decoder_config=decoder_config, **kwargs)


def known_only(cls: type[Any], values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The fields of a dataclass from the content of a config.json; ConfigError names a key that is not known."""
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(values) - known - {"model_type"})
    if unknown:
        raise ConfigError(f"{what} config: unknown key {short(unknown[0])}", f"known are {', '.join(sorted(known))}")
    return {name: value for name, value in values.items() if name in known}


def _check_heads(owner: str, width: int, heads: int) -> None:
    if heads < 1 or width % heads:
        raise ConfigError(f"{owner}: hidden_size {width} does not divide into {heads} heads")
