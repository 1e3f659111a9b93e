"""What a training run is told: frozen dataclasses read from one YAML file, unknown keys rejected.

Owns names, defaults and bounds. Knows nothing of models, data or files other than YAML.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from ..documents import read_yaml
from ..errors import ConfigError
from ..locate import expanded
from ..settings import check

T = TypeVar("T")


@dataclass(frozen=True)
class DataConfig:
    """Where clips come from and which of them count."""

    manifest: str = ""  # TSV with a header, or JSONL: audio or codes, text, speaker, [source, split]
    cache: str = ""  # directory for mels and codes as memory-mapped arrays; default: beside the run
    codec: str = ""  # a model directory whose codec turns audio into codes; default: that of --model
    phones: str = ""  # a model directory whose recogniser lays the phones of the manifest along the clips
    held_out: float = 0.02  # share of the clips to evaluate on, where the manifest has no `split`
    min_seconds: float = 0.4
    max_seconds: float = 12.0  # longer clips are left out (the codec crops them instead)
    variants: int = 1  # codes of each clip: as it is, and so many less one augmented copies
    shares: Mapping[str, float] = field(default_factory=dict)  # source → weight in sampling; 1 where not named


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay."""

    muon: bool = False  # Muon for the matrices between the tables: fewer steps to the same loss

    learning_rate: float = 3e-4
    warmup: int = 200  # steps
    final: float = 0.05  # share of the learning rate at the last step
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    clip: float = 1.0  # largest norm of the gradient; 0 is off


@dataclass(frozen=True)
class LoopConfig:
    """How long, how much at once, and when to look."""

    steps: int = 1000
    batch_frames: int = 4000  # codes (codec: mel frames) in one batch, about
    batch_clips: int = 512  # clips in one batch at most
    evaluate_every: int = 200  # steps
    held_out_batches: int = 8
    patience: int = 0  # evaluations without a better held-out loss before stopping; 0 never stops early
    save_every: int = 200  # steps
    log_every: int = 10  # steps
    seed: int = 0
    # Autocast on the forward pass; auto is bfloat16 where the device multiplies it: elsewhere it is ten times slower.
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    plot: bool = True  # loss.png where matplotlib is there


@dataclass(frozen=True)
class AugmentConfig:
    """Chances and sizes of what is done to mels before the codec sees them (natural log power)."""

    warp: float = 0.6  # chance of another vocal tract: bands stretched
    warp_range: float = 0.15
    stretch: float = 0.4  # chance of another tempo
    stretch_range: float = 0.2
    equalise: float = 0.5  # chance of another room and microphone
    equalise_deviation: float = 1.2
    noise: float = 0.35  # chance of coloured noise, which the codec should not hear
    noise_low: float = 1.5  # quietest and loudest noise, below the clip's level
    noise_high: float = 6.5


@dataclass(frozen=True)
class CodecTaskConfig:
    """What the codec is trained on beside the mel itself."""

    commitment: float = 0.25
    phones: float = 0.0  # weight of the phones that each code alone must tell (data.phones)
    consonants: float = 0.0  # how much more the frames of consonants count, in all these
    listen: float = 0.0  # weight of the phones that the recogniser hears in what comes out (data.phones)
    decay: float = 0.99  # of the codebook's running means
    other_clip: float = 0.5  # chance that the voice is another clip of the speaker, where there is one
    continuous_steps: int = 300  # before the codebook is put in
    crop_seconds: float = 4.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class PairTaskConfig:
    """What the contrastive pair learns from."""

    alignment: float = 0.0  # weight of the alignment head's loss, kept up beside the contrastive one
    damaged: float = 0.5  # damaged copies of the batch as extra negatives, as a share of its clips
    apart: float = 0.0  # weight of the alignment's likelihood of a clip above that of its damaged copy, if it learns
    dropout: float = 0.0  # chance that a code becomes a random one
    join: float = 0.0  # share of batches of which the clips are joined in twos: longer speech than the corpus has
    freeze: bool = False  # leave the speech encoder as it is: only the head, or the text side, learns


@dataclass(frozen=True)
class DecoderTaskConfig:
    """How the decoder is conditioned in training."""

    other_clip: float = 0.9  # chance that the voice is another clip of the speaker, where there is one
    voice_frames: int = 517  # 6 s
    dropout: float = 0.0  # chance that a code before the next becomes a random one: the text must tell, too
    phones: float = 0.0  # weight of the next code's phones (data.phones), told by a layer that is dropped at the end
    guide: float = 0.0  # weight, at first, of showing the attention where in the text each code is; falls to 0
    guide_steps: int = 1000  # steps until it is 0
    guide_first: int = 1  # the first layer that is shown, from 0
    guide_layers: int = 2  # how many layers are
    guide_heads: int = 2  # heads of each


@dataclass(frozen=True)
class TrainConfig:
    """One run."""

    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    codec: CodecTaskConfig = field(default_factory=CodecTaskConfig)
    pair: PairTaskConfig = field(default_factory=PairTaskConfig)
    decoder: DecoderTaskConfig = field(default_factory=DecoderTaskConfig)
    # Sizes of what is made from nothing: codec, alignment, and text_config, speech_config, decoder_config as published.
    model: Mapping[str, Any] = field(default_factory=dict)


SHARE, COUNT = (0, 1), (1, 10**9)
BOUNDS: dict[str, tuple[float, float]] = {  # of the others: NOT_NEGATIVE
    "data.held_out": SHARE,
    "data.max_seconds": (0, float("inf")),
    "data.variants": (1, 1000),
    "optim.final": SHARE,
    "optim.beta1": (0, 0.999999),
    "optim.beta2": (0, 0.999999),
    "loop.seed": (0, 2**32 - 1),
    **dict.fromkeys((f"loop.{name}" for name in ("steps", "batch_frames", "batch_clips", "held_out_batches")), COUNT),
    **dict.fromkeys((f"loop.{name}" for name in ("evaluate_every", "save_every", "log_every")), COUNT),
    "codec.decay": SHARE,
    "codec.other_clip": SHARE,
    "codec.crop_seconds": (0.1, 600),
    **dict.fromkeys((f"codec.augment.{name}" for name in ("warp", "stretch", "equalise", "noise")), SHARE),
    **dict.fromkeys((f"codec.augment.{name}" for name in ("warp_range", "stretch_range")), (0, 0.9)),
    **dict.fromkeys((f"codec.augment.{name}" for name in ("noise_low", "noise_high")), (-100, 100)),
    "pair.dropout": SHARE,
    "pair.damaged": SHARE,
    "pair.join": SHARE,
    "decoder.other_clip": SHARE,
    "decoder.voice_frames": (1, 100_000),
    "decoder.dropout": SHARE,
    "decoder.guide_layers": (1, 1000),
    "decoder.guide_heads": (1, 1000),
}
NOT_NEGATIVE = (0, 10**9)


def load_train_config(path: Path) -> TrainConfig:
    """Read a training YAML; paths in it are relative to it. ConfigError names a bad key, with the nearest known one."""
    loaded = read_yaml(path, "see configs/mini/")
    config = build(TrainConfig, loaded, str(path))
    data, augment = config.data, config.codec.augment
    if augment.noise_low > augment.noise_high:
        raise ConfigError(f"{path}: codec.augment.noise_low is above noise_high", "lower it or raise the other")
    if not data.manifest:
        raise ConfigError(f"{path}: data.manifest is missing", "name a JSONL or TSV file of audio, text and speaker")
    places: dict[str, Any] = {
        name: _beside(path, getattr(data, name)) for name in ("manifest", "cache", "codec", "phones")
    }
    return dataclasses.replace(config, data=dataclasses.replace(data, **places))


def build(kind: type[T], values: Mapping[str, Any], origin: str, prefix: str = "") -> T:
    """A dataclass from a nested mapping; ConfigError for an unknown key or a value of the wrong type."""
    kinds = get_type_hints(kind)
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in kinds:
            raise ConfigError(f"{origin}: unknown key {f'{prefix}{key}'[:80]!r}", nearest(str(key), kinds, prefix))
        name, inner = f"{prefix}{key}", kinds[key]
        if dataclasses.is_dataclass(inner):
            made[key] = build(inner, _mapping(value, origin, name), origin, f"{name}.")  # type: ignore[arg-type]
        elif inner is str or not str(inner).startswith("collections.abc.Mapping"):
            made[key] = "" if inner is str and value in (None, "") else _one(name, value, inner, origin)
        elif "float" in str(inner):
            made[key] = {
                str(k): _one(f"{name}.{k}", v, float, origin) for k, v in _mapping(value, origin, name).items()
            }
        else:
            made[key] = dict(_mapping(value, origin, name))
    return kind(**made)


def _one(name: str, value: Any, kind: Any, origin: str) -> Any:
    """A text, number or switch of that kind, within its bounds."""
    if not isinstance(value, str | int | float) and value is not None:
        raise ConfigError(f"{origin}: {name} is a {type(value).__name__}", "one text or number is expected")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{origin}: {name} is too large a number")
    found = check(name, value, kind, origin)
    low, high = BOUNDS.get(name, NOT_NEGATIVE)
    if isinstance(found, int | float) and not low <= found <= high:
        raise ConfigError(f"{origin}: {name} is {found}", f"it must be from {low:g} to {high:g}")
    return found


def _mapping(value: Any, origin: str, name: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{origin}: {name}: a mapping is expected, found {type(value).__name__}")
    return value


def nearest(key: str, known: Mapping[str, Any], prefix: str) -> str:
    """A hint that names the closest known key, or all of them."""
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    if close:
        return f"did you mean {prefix + close[0]!r}?"
    return f"known here are {', '.join(prefix + name for name in known)}"


def _beside(config_path: Path, name: str) -> str:
    return str(config_path.parent / expanded(name)) if name else ""
