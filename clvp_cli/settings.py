"""The settings of a run: one frozen dataclass a subject, read from YAML, the environment and flags, in that order.

Owns every default of the command line and remembers where each value came from. Knows nothing of models or files
other than YAML. A setting is named by its dotted path, `sampling.temperature`; its variable in the environment is
CLVP_SAMPLING_TEMPERATURE, and CLVP_MODEL, CLVP_DEVICE, … for those without a dot.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .documents import read_yaml, short
from .errors import ConfigError
from .locate import expanded

log = logging.getLogger("clvp")

DEFAULT_SEED = 20240229
OTHER_VARIABLES = ("CLVP_USER_CONFIG", "CLVP_NATIVE", "CLVP_DEBUG")  # CLVP_… that are no settings


@dataclass(frozen=True)
class TextSettings:
    """How text becomes ids."""

    normalizer: Literal["english", "hf", "tortoise"] = "english"
    tokenizer: Literal["hf", "tortoise"] = "hf"


@dataclass(frozen=True)
class VoiceSettings:
    """How reference clips become one conditioning vector."""

    windows: Literal["all", "first"] = "all"  # every 6 s window of a clip, or its first
    clips: Literal["mean", "first"] = "mean"  # the mean over clips, or the first alone
    seconds: float | Literal["auto"] = "auto"  # length of a window, auto: the model's own (6); silence pads it


@dataclass(frozen=True)
class SamplingSettings:
    """How codes are drawn. Order: repetition penalty → temperature → top-k → top-p → typical."""

    n: int = 16  # candidates of one prompt
    temperature: float = 0.8
    top_p: float = 0.8  # nucleus mass; 1 is off
    top_k: int = 50  # 0 is off
    typical_p: float = 1.0  # mass of locally typical sampling; 1 is off
    repetition_penalty: float = 2.0  # 1 is off
    penalty_history: Literal["codes", "start", "tortoise"] = "codes"  # what counts as said before the first code
    min_codes: int = 0  # no stop code before so many
    max_codes: int = 500  # codes sampled at most, the stop code included
    greedy: bool = False  # the most probable code each time
    beams: int = 1  # beam search with so many beams; 1 is off
    length_penalty: float = 1.0  # beam search: score / length ** penalty
    code_positions: Literal["trained", "skip"] = "trained"  # 0 1 2 3, or the cached reference's 0 2 3 4
    suppress_start: bool = True  # never sample the start code, which the speech encoder cannot read, nor nothing at all

    @property
    def found(self) -> int:
        """Candidates that a prompt has: n, or as many as the beam is wide where that is less."""
        return self.n if self.beams == 1 else min(self.n, self.beams)


@dataclass(frozen=True)
class ScoringSettings:
    """How candidates are judged."""

    pad: int | Literal["own", "batch"] = "own"  # each candidate's own length, the longest, or a fixed length
    rms_norm: Literal["config", "clamp"] = "config"  # clamp: Tortoise's norm in both encoders
    rank_by: str = "auto"  # "auto": what the model proposes; else signals joined by "+", as in clvp+alignment


@dataclass(frozen=True)
class Settings:
    """Everything a command can be told."""

    model: str = "mini"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] = "auto"
    seed: int = DEFAULT_SEED
    batch_size: int = 0  # rows at once; 0 chooses by memory. Never changes a result
    text: TextSettings = field(default_factory=TextSettings)
    voice: VoiceSettings = field(default_factory=VoiceSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    scoring: ScoringSettings = field(default_factory=ScoringSettings)


BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "batch_size": (0, 65_536),
    "voice.seconds": (0.1, 60.0),
    "sampling.n": (1, 100_000),
    "sampling.temperature": (1e-3, 100.0),
    "sampling.top_p": (1e-6, 1.0),
    "sampling.top_k": (0, 1_000_000),
    "sampling.typical_p": (1e-6, 1.0),
    "sampling.repetition_penalty": (1e-3, 1000.0),
    "sampling.min_codes": (0, 100_000),
    "sampling.max_codes": (1, 100_000),
    "sampling.beams": (1, 64),
    "sampling.length_penalty": (-100.0, 100.0),
    "scoring.pad": (1, 8192),  # the longest candidate (records.MAX_LENGTH)
}


@dataclass(frozen=True)
class Layer:
    """Values of one origin: dotted names → values, and how to name the origin to a person."""

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Resolved:
    """Settings with the origin of each value."""

    settings: Settings
    origins: Mapping[str, str]

    def rows(self) -> list[tuple[str, Any, str]]:
        """(dotted name, value, origin) of every setting, in order."""
        flat = flatten(dataclasses.asdict(self.settings))
        return [(name, value, self.origins[name]) for name, value in flat.items()]


def resolve(layers: Iterable[Layer]) -> Resolved:
    """Put layers on top of the defaults, later ones winning; ConfigError names a bad key or value and its origin."""
    kinds = field_types()
    values = flatten(dataclasses.asdict(Settings()))
    origins = dict.fromkeys(values, "default")
    for layer in layers:
        for name, value in layer.values.items():
            if name not in kinds:
                raise ConfigError(f"{layer.origin}: unknown setting {short(name)}", nearest(name, kinds))
            values[name] = check(name, value, kinds[name], layer.origin)
            origins[name] = layer.origin
    if values["sampling.greedy"] and origins["sampling.repetition_penalty"] == "default":
        # Greedy means the most probable code; only a penalty that somebody asked for may change which that is.
        values["sampling.repetition_penalty"] = 1.0
        origins["sampling.repetition_penalty"] = "off because of greedy"
    if values["sampling.min_codes"] > values["sampling.max_codes"]:
        low, high = values["sampling.min_codes"], values["sampling.max_codes"]
        raise ConfigError(f"sampling.min_codes {low} is above sampling.max_codes {high}", "lower it or raise the other")
    return Resolved(build(values), origins)


def build(values: Mapping[str, Any]) -> Settings:
    """Settings from a full set of dotted values."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        group, _, key = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[key] = value
    groups = {f.name: f.default_factory for f in dataclasses.fields(Settings) if callable(f.default_factory)}
    made = {name: dataclasses.replace(make(), **nested.pop(name, {})) for name, make in groups.items()}
    return Settings(**nested, **made)


def field_types() -> dict[str, Any]:
    """Dotted name → annotated type of every setting."""
    kinds: dict[str, Any] = {}
    for name, kind in get_type_hints(Settings).items():
        if dataclasses.is_dataclass(kind):
            kinds |= {f"{name}.{key}": inner for key, inner in get_type_hints(kind).items()}
        else:
            kinds[name] = kind
    return kinds


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def check(name: str, value: Any, kind: Any, origin: str) -> Any:
    """`value` as the setting's type, text (from the environment) converted; ConfigError where it cannot be."""
    for option in get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,):
        converted = _convert(value, option)
        if converted is not None:
            low, high = BOUNDS.get(name, (-float("inf"), float("inf")))
            if isinstance(converted, int | float) and not low <= converted <= high:
                raise ConfigError(f"{origin}: {name} is {short(converted)}", f"it must be from {low:g} to {high:g}")
            return converted
    raise ConfigError(f"{origin}: {name} is {short(value)}", f"expected: {_expected(kind)}")


def _convert(value: Any, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else None
    if kind is bool:
        words = {
            "true": True,
            "1": True,
            "yes": True,
            "on": True,
            "false": False,
            "0": False,
            "no": False,
            "off": False,
        }
        return value if isinstance(value, bool) else words.get(value.lower()) if isinstance(value, str) else None
    if isinstance(value, bool):
        return None
    if kind is str:
        return value if isinstance(value, str) and value else None
    try:
        if kind is int:
            return int(value) if isinstance(value, int | str) else None
        return float(value) if isinstance(value, int | float | str) and float(value) == float(value) else None
    except (ValueError, OverflowError):
        return None


def _expected(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " | ".join(_expected(option) for option in get_args(kind))
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}[kind.__name__]


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known key."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "`clvp config show` lists every setting"


def environment_layer(environ: Mapping[str, str] | None = None) -> Layer:
    """The settings named by CLVP_… variables."""
    environ = os.environ if environ is None else environ
    names = {f"CLVP_{name.replace('.', '_').upper()}": name for name in field_types()}
    for key in environ:
        if key.startswith("CLVP_") and key not in names and key not in OTHER_VARIABLES:
            log.warning("%s in the environment is no setting: %s", key, nearest(key, names))
    return Layer("environment", {names[key]: value for key, value in environ.items() if key in names and value})


def file_layer(path: Path) -> Layer:
    """The settings of one YAML file; ConfigError where it is not a mapping or not YAML."""
    return Layer(str(path), flatten(read_yaml(path, "see configs/default.yaml")))


def shipped_configs() -> dict[str, Path]:
    """The YAML files that come with the package, by name."""
    here = Path(__file__).resolve().parent
    for directory in (here / "configs", here.parent / "configs"):  # installed; a checkout
        if directory.is_dir():
            return {path.stem: path for path in sorted(directory.glob("*.yaml"))}
    return {}


def find_config(name: str) -> Path:
    """A YAML file by path, or a shipped one by name."""
    path = expanded(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
        return path
    shipped = shipped_configs()
    if name not in shipped:
        raise ConfigError(
            f"no configuration is called {short(name)}", f"shipped are {', '.join(shipped)}; or give a YAML file"
        )
    return shipped[name]


def user_config() -> Path:
    """Where a person keeps their own defaults: $CLVP_USER_CONFIG, or clvp/config.yaml under XDG_CONFIG_HOME."""
    given = os.environ.get("CLVP_USER_CONFIG")
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return expanded(given or f"{base}/clvp/config.yaml")


def load_settings(configs: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> Resolved:
    """The settings of this run: flags > environment > --config files > the user's file > defaults.

    `flags` maps dotted names to values; those that are None were not given.
    """
    own = user_config()
    layers = [file_layer(own)] if own.is_file() else []
    layers += [file_layer(find_config(name)) for name in configs]
    layers.append(environment_layer())
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    return resolve([*layers, Layer("command line", given)])
