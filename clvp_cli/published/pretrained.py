"""ClvpPreTrainedModel: what every published model class has: loading, saving, device, dtype, embeddings.

Owns which files save_pretrained writes and which part of a checkpoint a class reads. Knows no forward pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from ..checkpoints.layout import INV_FREQ
from ..config import ClvpConfig, PublishedConfig
from ..documents import read_json
from ..errors import ConfigError, UsageError
from ..locate import CONFIG_NAME, model_path
from ..model.clvp import ClvpNetwork
from ..model.initialise import initialise
from .generation_config import GENERATION_CONFIG_NAME, GenerationConfig
from .storing import load_own, load_part, save_model

# Arguments of the published from_pretrained that say where files come from or how; here they change nothing.
WITHOUT_EFFECT = (
    *(
        "local_files_only",
        "low_cpu_mem_usage",
        "use_safetensors",
        "weights_only",
        "trust_remote_code",
        "force_download",
    ),
    *("attn_implementation", "proxies", "token", "use_auth_token", "revision", "cache_dir", "resume_download"),
)
CONFIG_EXTRAS = ("output_hidden_states", "output_attentions", "return_dict", "use_cache")

_inside: ContextVar[bool] = ContextVar("inside a model that is being made", default=False)


@contextmanager
def _making() -> Iterator[bool]:
    """True for the outermost of the models being made: it alone draws the weights, once."""
    outermost = not _inside.get()
    token = _inside.set(True)
    try:
        yield outermost
    finally:
        _inside.reset(token)


def choice(config: PublishedConfig, name: str, given: bool | None, default: bool) -> bool:
    """The argument where it was given, else what the configuration says, else `default`."""
    if given is not None:
        return given
    return bool(getattr(config, name, config.extra.get(name, default)))


@dataclass(frozen=True)
class Place:
    """Where a class lies in the whole model: its configuration, and the prefix of its names."""

    config: PublishedConfig
    prefix: str


class ClvpPreTrainedModel(nn.Module):
    """The base of the published model classes. Weights are random until they are loaded."""

    config_class: ClassVar[type[PublishedConfig]] = ClvpConfig
    base_model_prefix = "clvp"
    main_input_name = "input_ids"
    config: Any
    generation_config: GenerationConfig

    def __init__(self, config: Any) -> None:
        self._check_kind(config)
        with _making() as outermost:
            super().__init__(config)
        self.config = config
        self.generation_config = default_generation(config)
        if outermost and not isinstance(self, ClvpNetwork):  # which draws its weights itself
            initialise(self, config)

    @classmethod
    def _check_kind(cls, config: object) -> None:
        if not isinstance(config, cls.config_class):
            expected, found = cls.config_class.__name__, type(config).__name__
            raise ConfigError(f"{cls.__name__} takes a {expected}, not a {found}")

    @classmethod
    def _place(cls, config: ClvpConfig) -> Place:
        """Where this class lies in a checkpoint of the whole model."""
        return Place(config, "")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many weights there are."""
        tables = {id(part.weight) for part in self.modules() if isinstance(part, nn.Embedding)}
        return sum(
            p.numel()
            for p in self.parameters()
            if not (only_trainable and not p.requires_grad) and not (exclude_embeddings and id(p) in tables)
        )

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's, also with a published model's own state_dict(): its rotary tables are computed here, not kept."""
        kept = {name: tensor for name, tensor in state_dict.items() if not name.endswith(INV_FREQ)}
        return super().load_state_dict(kept, strict, assign)

    def can_generate(self) -> bool:
        """Whether there is a `generate`."""
        return hasattr(self, "generate")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: Any = None,
        torch_dtype: torch.dtype | str | None = None,
        dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        config_type: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load weights, strictly and without pickle, ready for inference (eval; gradients stay on).

        Args:
            pretrained_model_name_or_path: a directory in the published layout or of Tortoise's files, "mini", or a
                hub id that is in the local cache. A part (ClvpEncoder, ClvpForCausalLM, …) loads from a directory of
                its own or out of a whole model; config_type="speech_config" picks ClvpEncoder's speech encoder.
            config: instead of the directory's config.json.
            torch_dtype, dtype: a torch dtype, its name, or "auto" for the file's own; float32 where neither is given.
            device_map: a device, or "auto" for the best there is; the CPU by default.
            kwargs: overrides of the configuration. Arguments about downloading have no effect: nothing is downloaded.

        Raises:
            CheckpointError: no such model, or a missing, unknown or misshapen weight.
            UsageError: an argument of no known name or value.
        """
        path = model_path(pretrained_model_name_or_path)
        overrides = {name: value for name, value in kwargs.items() if name not in WITHOUT_EFFECT}
        select = {} if config_type is None else {"config_type": config_type}
        wanted, device = _dtype(torch_dtype if dtype is None else dtype), _device(device_map)
        directory = path if path.is_dir() else path.parent
        own = directory / CONFIG_NAME
        if own.exists() and read_json(own).get("model_type", "clvp") != "clvp":
            sizes = _overridden(config or cls.config_class.from_dict(read_json(own)), overrides)
            module = load_own(cls._on_meta(sizes), directory, wanted, device)
        else:
            module = cls._from_whole(path, config, overrides, select, wanted, device)
        module.requires_grad_(True)
        if (directory / GENERATION_CONFIG_NAME).exists():
            module.generation_config = default_generation(module.config, directory)
        return module

    @classmethod
    def _from_whole(
        cls,
        path: Path,
        config: Any,
        overrides: dict[str, Any],
        select: dict[str, str],
        dtype: torch.dtype | None,
        device: torch.device,
    ) -> Self:
        from ..checkpoints.load import open_checkpoint

        checkpoint = open_checkpoint(path)
        place = cls._place(checkpoint.config, **select)
        sizes = _overridden(config or place.config, overrides)
        return load_part(cls._on_meta(sizes), checkpoint, place.prefix, dtype, device)

    @classmethod
    def _on_meta(cls, config: Any) -> Self:
        config.check_depth()
        with torch.device("meta"):
            return cls(config)

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        *,
        safe_serialization: bool = True,
        max_shard_size: int | str = "5GB",
        **kwargs: Any,
    ) -> None:
        """Write config.json, generation_config.json and the weights into a directory, made where missing.

        The published classes load it. Other files there stay (a processor may be saved beside it); weights of an
        earlier save are replaced at the end, each file at once.

        Args:
            is_main_process: False writes nothing.
            state_dict: weights to write instead of the model's own.
            safe_serialization: safetensors; False writes pytorch_model.bin.
            max_shard_size: bytes, or a text as "500MB"; safetensors only.

        Raises:
            OutputError: the directory cannot be written.
        """
        if is_main_process:
            save_model(self, Path(save_directory), state_dict, safe_serialization, max_shard_size)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of the main input."""
        raise UsageError(f"{type(self).__name__} has no input embedding of its own", "ask one of its parts")

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding of the main input."""
        raise UsageError(f"{type(self).__name__} has no input embedding of its own", "set that of one of its parts")


def default_generation(config: Any, directory: Path | None = None) -> GenerationConfig:
    """The directory's generation_config.json, or the defaults; the start and stop codes are always the decoder's.

    (The published loader takes the text encoder's 255 and 0 where the file is missing, and never stops.)
    """
    decoder = config.decoder_config if isinstance(config, ClvpConfig) else config
    ends = {"bos_token_id": decoder.bos_token_id, "eos_token_id": decoder.eos_token_id}
    return GenerationConfig.from_pretrained(directory, **ends) if directory else GenerationConfig(**ends)


def _overridden(config: Any, overrides: dict[str, Any]) -> Any:
    """The configuration with keyword arguments of from_pretrained on top; UsageError for names it does not have."""
    names = {each.name for each in dataclasses.fields(config)} | set(CONFIG_EXTRAS)
    for name in overrides:
        if name not in names:
            raise UsageError(f"from_pretrained: unknown argument {name!r}", "it takes fields of the configuration")
    return type(config).from_dict(config.to_dict(), **overrides) if overrides else config


def _dtype(given: torch.dtype | str | None) -> torch.dtype | None:
    if given == "auto":
        return None
    found = getattr(torch, given.removeprefix("torch."), None) if isinstance(given, str) else given or torch.float32
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UsageError(f"torch_dtype {given!r}", 'use torch.float32, torch.bfloat16, torch.float16 or "auto"')
    return found


def _device(given: Any) -> torch.device:
    from ..core import pick_device

    if isinstance(given, dict):
        if list(given) != [""]:
            raise UsageError("device_map: the model goes to one device", 'use device_map="auto" or a device')
        given = given[""]
    if isinstance(given, int):
        given = f"cuda:{given}"
    return pick_device(str(given or "cpu"))
