"""What from_pretrained and save_pretrained do with files: a class's own directory, or its part of a whole model.

Owns which files stand for a saved class. Formats and their checks are those of the checkpoints room.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.layout import INV_FREQ
from ..checkpoints.modules import load_module
from ..checkpoints.published import OLD_WEIGHTS, WEIGHTS, open_weights, weights_file
from ..checkpoints.save import infos_of
from ..checkpoints.writer import write_sharded
from ..errors import CheckpointError, OutputError, UsageError
from ..locate import CONFIG_NAME
from ..model.encoder import Encoder, rotary_inv_freq

M = TypeVar("M", bound=nn.Module)

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
WEIGHT_FILES = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")


def load_own(module: M, directory: Path, dtype: torch.dtype | None, device: torch.device) -> M:
    """Fill a module on the meta device from a directory that it, or its published counterpart, saved."""
    weights = weights_file(directory)
    if weights is None:
        raise CheckpointError(f"{directory}: no {WEIGHTS} in it", "copy or save the weights beside the config.json")
    store = open_weights(weights)
    tables = derived_state(module)
    state = store.tensors(name for name in store.infos if name not in tables)
    load_module(module, state, dtype, str(device), where=str(weights))
    return module


def load_part(module: M, checkpoint: Checkpoint, prefix: str, dtype: torch.dtype | None, device: torch.device) -> M:
    """Fill a module on the meta device from the names under `prefix` of a whole model."""
    checkpoint.load_into(module, prefix, dtype, str(device))
    return module


def derived_state(module: nn.Module) -> dict[str, Tensor]:
    """The tables that the published files carry and this project computes: name → rotary frequencies."""
    return {
        f"{name}.{INV_FREQ}".removeprefix("."): rotary_inv_freq(part.config)
        for name, part in module.named_modules()
        if isinstance(part, Encoder) and part.config.use_rotary_embedding
    }


def save_model(
    model: Any, directory: Path, state: dict[str, Tensor] | None, safe: bool, max_shard_size: int | str
) -> None:
    """Write a model's files beside their place and move each there at the end. OutputError: it cannot be done."""
    if directory.exists() and not directory.is_dir():
        raise OutputError(f"{directory}: a file is there", "save_pretrained takes a directory")
    weights = {**(model.state_dict() if state is None else state), **derived_state(model)}
    most = shard_bytes(max_shard_size)
    made = directory / f".saving-{secrets.token_hex(4)}"
    try:
        made.mkdir(parents=True)
        (made / CONFIG_NAME).write_text(config_text(model), encoding="utf-8")
        if model.can_generate():
            model.generation_config.save_pretrained(made)
        if safe:
            write_sharded(made, infos_of(weights), weights.__getitem__, most)
        else:
            torch.save(
                {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, made / OLD_WEIGHTS
            )
        _move(made, directory)
    except (OSError, RuntimeError) as error:  # torch.save tells of a full disk with a RuntimeError
        if isinstance(error, OutputError):
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise OutputError(f"{directory}: not written: {reason}", "choose another place, or free some space") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _move(made: Path, directory: Path) -> None:
    """Move the files into their place; weights that an earlier save left and this one lacks go."""
    names = {entry.name for entry in made.iterdir()}
    for name in sorted(names, key=lambda name: name == CONFIG_NAME):  # the configuration last: it makes it a model
        (made / name).replace(directory / name)
    for entry in directory.iterdir():
        if entry.name not in names and WEIGHT_FILES.fullmatch(entry.name):
            entry.unlink()


def config_text(model: Any) -> str:
    """The config.json of a model: its configuration, its class and its precision."""
    content = {
        **model.config.to_dict(),
        "architectures": [type(model).__name__],
        "torch_dtype": str(model.dtype).removeprefix("torch."),
    }
    return json.dumps(content, indent=2, sort_keys=True, default=list) + "\n"


def shard_bytes(size: int | str) -> int:
    """ "5GB" → 5 000 000 000. UsageError for what is no size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?I?B)", str(size).strip().upper())
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    if match is None or match[2] not in UNITS:
        raise UsageError(f"max_shard_size {size!r}", 'give bytes, or a text as "500MB" or "5GB"')
    return max(1, int(float(match[1]) * UNITS[match[2]]))
