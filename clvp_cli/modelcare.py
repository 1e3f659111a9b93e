"""Models as a whole: what one is, one from another format, one of random weights. Light until weights are moved.

Stands beside the pipeline, for commands that handle a model without running it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import UsageError
from .locate import expanded, model_path

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "int8": "I8"}


def model_facts(name: str) -> dict[str, Any]:
    """What a model is: format, files, parameters by part, sizes, side models. Only headers of safetensors are read."""
    from .checkpoints.info import describe

    return {"model": name, **describe(model_path(name))}


def convert_model(source: str, target: str | Path, dtype: str | None = None, force: bool = False) -> dict[str, Any]:
    """Write a model of any known format as a safetensors directory, and tell what is there then.

    Args:
        source: a model as `model_path` takes it.
        target: the directory to make.
        dtype: float32, bfloat16 or float16 for all weights, int8 for the decoder's matrices and table of codes; None
            keeps them as they are.
        force: replace a model directory that is there.
    Raises:
        CheckpointError, ConfigError: the source cannot be read. UsageError: no such type.
        OutputError: something is at `target`, or it cannot be written. Nothing is changed there then.
    """
    from .checkpoints.layout import ROUNDED
    from .checkpoints.load import open_checkpoint
    from .checkpoints.rounded import is_rounded
    from .checkpoints.save import save_checkpoint

    named, checkpoint, target = _stored_as(dtype), open_checkpoint(model_path(source)), expanded(target)
    if named not in (None, ROUNDED) and is_rounded(checkpoint.tensors):
        raise UsageError(f"{source}: its decoder is rounded to int8 already", "convert the model it was made from")
    save_checkpoint(checkpoint, target, dtype=named, force=force)
    return model_facts(str(target))


def random_model(
    target: str | Path, sizes: str = "tiny", seed: int = 0, dtype: str | None = None, force: bool = False
) -> dict[str, Any]:
    """Make a model directory of random weights, and tell what is there then.

    Args:
        target: the directory to make.
        sizes: "full", "tiny", or a config.json.
        seed, dtype, force: the weights follow from sizes and seed; otherwise as for `convert_model`.
    Raises:
        UsageError, ConfigError: no such sizes or type. OutputError: as for `convert_model`.
    """
    from .checkpoints.random import random_directory
    from .config import ClvpConfig
    from .documents import read_json

    file, target = expanded(sizes), expanded(target)
    config = ClvpConfig.from_dict(read_json(file)) if file.suffix == ".json" else sizes
    random_directory(target, config, seed, dtype=_stored_as(dtype), force=force)
    return model_facts(str(target))


def _stored_as(dtype: str | None) -> str | None:
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"no type {dtype!r} for weights", f"it is one of {', '.join(DTYPES)}")
    return DTYPES[dtype] if dtype else None
