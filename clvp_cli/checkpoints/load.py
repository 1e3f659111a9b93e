"""From a path to a checkpoint: which format it is, told by its content.

Opening reads names and shapes alone (without torch where the files are safetensors) and checks the whole state
against the configuration.
"""

from __future__ import annotations

from pathlib import Path

from ..config import ClvpConfig
from ..documents import read_json
from ..errors import CheckpointError
from ..locate import CONFIG_NAME
from .checkpoint import EXTRAS, Checkpoint, Extra
from .layout import check_state, is_published, parts_in
from .published import CANDIDATES, open_weights, weights_file
from .tensors import open_tensors


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a model directory or file of any known format, told by its content, and check it as a whole.

    Args:
        path: a published directory, a directory of Tortoise's files under whatever names, or one file of either.
    Raises:
        CheckpointError: nothing there is a model, or what is there is damaged, incomplete or unsafe.
        ConfigError: the config.json cannot be used.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory", "give a model directory, or the name of a model")
    weights = weights_file(path) if path.is_dir() else path
    if weights is not None and (weights.parent / CONFIG_NAME).exists() and _speaks_published(weights):
        checkpoint = _open_published(path, weights)
    elif path.is_dir() and weights is not None and not (path / CONFIG_NAME).exists():
        raise CheckpointError(f"{path}: {weights.name} without a {CONFIG_NAME}", f"copy the {CONFIG_NAME} beside it")
    else:
        from .tortoise import open_tortoise  # only now: reading Tortoise's files needs torch

        checkpoint = open_tortoise(path)
    check_state(str(path), checkpoint.tensors, checkpoint.config)
    return checkpoint


def _speaks_published(weights: Path) -> bool:
    """Whether a file's names are the published ones; in a directory its name already says so."""
    if weights.name in CANDIDATES:
        return True
    return is_published(open_weights(weights).infos)


def _open_published(path: Path, weights: Path) -> Checkpoint:
    config = ClvpConfig.from_dict(read_json(weights.parent / CONFIG_NAME))
    store = open_weights(weights)
    if not parts_in(store.infos):
        raise CheckpointError(f"{weights}: none of its {len(store.infos)} names are those of a CLVP model")
    return Checkpoint(path, "hf", config, store, _extras(weights.parent, config))


def _extras(directory: Path, config: ClvpConfig) -> dict[str, Extra]:
    """The side models of a published directory: its subdirectories, else Tortoise's files beside the weights."""
    extras = open_extras(directory)
    files = [directory / file for name, file in EXTRAS.items() if file and name not in extras]
    files = [file for file in files if file.is_file()]
    if files:
        from .adapter import MainSizes
        from .tortoise import side_models

        main = MainSizes(config.decoder_config.hidden_size, config.decoder_config.bos_token_id)

        extras |= side_models({file.name: open_tensors(file) for file in files}, main, {})
    return extras


def open_extras(directory: Path) -> dict[str, Extra]:
    """The side models that have a subdirectory of their own."""
    return {name: extra for name in EXTRAS if (extra := open_extra(directory, name)) is not None}


def open_extra(directory: Path, name: str) -> Extra | None:
    """The model of that name in its subdirectory, or None where there is no such subdirectory."""
    path = directory / name
    if not path.is_dir():
        return None
    weights = weights_file(path)
    if weights is None:
        raise CheckpointError(f"{path}: no model.safetensors in it", "remove the directory, or copy its files again")
    return Extra(name, path, "hf", read_json(path / CONFIG_NAME), open_weights(weights))
