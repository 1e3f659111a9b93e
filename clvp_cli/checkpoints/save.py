"""Saving a model as a published directory, whole or not at all.

Weights go to disk in the published layout only, with the derived tables that the published loader insists on; packed
forms never. The directory is made beside its place and renamed into it. Owns which files such a directory has.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ClvpConfig
from ..errors import OutputError
from ..io.atomic import undisturbed
from ..locate import CONFIG_NAME
from .checkpoint import EXTRAS, Checkpoint
from .layout import ROUNDED, check_state, derived_tables, part_of, parts_in
from .published import WEIGHTS_INDEX
from .rounded import rounded
from .tensors import FLOAT_TYPES, TensorInfo
from .writer import Produce, write_sharded

if TYPE_CHECKING:
    from torch import Tensor

MAX_SHARD_BYTES = 5_000_000_000  # the published default
GENERATION = {"do_sample": True, "max_new_tokens": 256}  # the published settings, less the decoder's own two ids
TOKENIZER = {
    "tokenizer_class": "ClvpTokenizer",
    "processor_class": "ClvpProcessor",
    "bos_token": "<|endoftext|>",
    "eos_token": "[STOP]",
    "pad_token": "[STOP]",
    "unk_token": "[UNK]",
    "add_bos_token": False,
    "add_eos_token": False,
    "add_prefix_space": False,
    "errors": "replace",
}
PREPROCESSOR = {
    "feature_extractor_type": "ClvpFeatureExtractor",
    "processor_class": "ClvpProcessor",
    "feature_size": 80,
    "sampling_rate": 22050,
    "default_audio_length": 6,
    "hop_length": 256,
    "chunk_length": 30,
    "n_fft": 1024,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
}
COMPANIONS = ("generation_config.json", "preprocessor_config.json", "tokenizer_config.json", "vocab.json", "merges.txt")
WEIGHT_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


def save_directory(
    path: Path,
    config: ClvpConfig,
    state: Mapping[str, Tensor],
    *,
    generation_config: Mapping[str, Any] | None = None,
    extras: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Tensor]]] | None = None,
    companions: Path | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    dtype: str | None = None,
    force: bool = False,
) -> None:
    """Save a state in the published layout, so that this project and the published classes load it.

    Args:
        path: the directory to make.
        config: what config.json will say; the state must be the parts of it, exactly.
        state: name → tensor, derived tables left out.
        generation_config: content of generation_config.json; by default the published one.
        extras: side models by name (`EXTRAS`): content of config.json, and state.
        companions: a directory whose tokenizer and preprocessor files are copied where it has them.
        dtype: "F32", "F16" or "BF16" for all floating weights; "I8" for the decoder's large matrices alone; None keeps
            each tensor's own.
        force: replace a model directory that is there.
    Raises:
        CheckpointError: the state is not that of the configuration.
        OutputError: something is at `path`, or the disk is full. Nothing is left there then.
    """
    sides = {name: Weights(json_text(side[0]), *_held(side[1])) for name, side in (extras or {}).items()}
    main = Weights(config.to_json_string(), *_held(state))
    texts = {"generation_config.json": json_text(generation_config)} if generation_config else {}
    with replacing(path, force) as directory:
        write_model(directory, config, main, dtype, max_shard_bytes)
        for name, side in sides.items():
            (directory / name).mkdir()
            write_weights(directory / name, side, None if dtype == ROUNDED else dtype, max_shard_bytes)
        write_companions(directory, config, companions, texts)


def save_checkpoint(checkpoint: Checkpoint, path: Path, **options: Any) -> None:
    """Save an opened checkpoint of whatever format as a published directory; options are those of `save_directory`.

    It may replace itself, as all of it is read before, but neither a part of itself nor what it is a part of.
    """
    source, target = Path(os.path.realpath(checkpoint.path)), Path(os.path.realpath(path))
    inside = source in target.parents and (target.exists() or target.name in EXTRAS)
    if source.is_dir() and (inside or target in source.parents):
        raise OutputError(f"{path}: not written: it lies in the model that is read or holds it", "choose another place")
    save_directory(
        path,
        checkpoint.config,
        checkpoint.state(),
        extras={name: (extra.config, extra.state()) for name, extra in checkpoint.extras.items()},
        companions=checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent,
        **options,
    )


@dataclass(frozen=True)
class Weights:
    """What goes into one directory: the text of config.json, what tensors there are, and where each comes from."""

    config: str
    infos: Mapping[str, TensorInfo]
    produce: Produce


def write_model(directory: Path, config: ClvpConfig, main: Weights, dtype: str | None, max_shard_bytes: int) -> None:
    """Write the main model into `directory`: its state checked against `config`, the derived tables added."""
    check_state(str(directory), main.infos, config)
    if dtype == ROUNDED:
        main, dtype = Weights(main.config, *rounded(main.infos, main.produce)), None
    tables = {name: table for name, table in derived_tables(config).items() if part_of(name) in parts_in(main.infos)}
    infos = cast_infos(main.infos, dtype) | infos_of(tables)  # the tables stay float32: halves would round them

    def produce(name: str) -> Tensor:
        return tables[name] if name in tables else main.produce(name)

    write_weights(directory, Weights(main.config, infos, produce), None, max_shard_bytes)


def write_weights(directory: Path, weights: Weights, dtype: str | None, max_shard_bytes: int) -> None:
    """Write config.json and the weights into `directory`, floating tensors as `dtype` where it is given."""
    (directory / CONFIG_NAME).write_text(weights.config, encoding="utf-8")
    write_sharded(directory, cast_infos(weights.infos, dtype), weights.produce, max_shard_bytes)


def write_companions(directory: Path, config: ClvpConfig, source: Path | None, texts: Mapping[str, str]) -> None:
    """Write the files beside the weights: as given, else as `source` has them, else the published ones."""
    for name in COMPANIONS:
        if name in texts:
            (directory / name).write_text(texts[name], encoding="utf-8")
        elif source is not None and (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
        else:
            (directory / name).write_text(published_companion(name, config), encoding="utf-8")


def published_companion(name: str, config: ClvpConfig) -> str:
    """The published content of one of `COMPANIONS`, for a model of that configuration."""
    if name in ("vocab.json", "merges.txt"):
        return (resources.files("clvp_cli.assets") / name).read_text(encoding="utf-8")
    if name == "preprocessor_config.json":
        from ..audio.mel import published_mel_norms

        return json_text({**PREPROCESSOR, "mel_norms": [float(norm) for norm in published_mel_norms()]})
    if name == "tokenizer_config.json":
        return json_text(TOKENIZER)
    decoder = config.decoder_config
    return json_text({**GENERATION, "bos_token_id": decoder.bos_token_id, "eos_token_id": decoder.eos_token_id})


def infos_of(state: Mapping[str, Tensor]) -> dict[str, TensorInfo]:
    """What a state in memory holds."""
    from .pickles import DTYPE_NAMES

    return {name: TensorInfo(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in state.items()}


def cast_infos(infos: Mapping[str, TensorInfo], dtype: str | None) -> dict[str, TensorInfo]:
    """The same with floating tensors as `dtype`."""
    return {
        name: replace(info, dtype=dtype) if dtype and info.dtype in FLOAT_TYPES else info
        for name, info in infos.items()
    }


def _held(state: Mapping[str, Tensor]) -> tuple[dict[str, TensorInfo], Produce]:
    return infos_of(state), state.__getitem__


def json_text(content: Mapping[str, Any]) -> str:
    """The text of a JSON file, keys sorted."""
    return json.dumps(dict(content), indent=2, sort_keys=True) + "\n"


@contextmanager
def replacing(path: Path, force: bool) -> Iterator[Path]:
    """A new directory to fill, which becomes `path` at the end; after an error neither it nor a change is left.

    A symbolic link stays, and what it leads to is replaced.

    Raises:
        OutputError: `path` is there and `force` is not given, or it holds what no model saved here has.
    """
    path = Path(os.path.realpath(path))
    _check_free(path, force)
    made = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        made.mkdir(parents=True)
        yield made
        with undisturbed():
            _check_free(path, force)  # again: something may have come there meanwhile
            _exchange(path, made)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{path}: not written: {error.strerror}", "choose another place, or free some space"
        ) from None
    finally:
        with undisturbed():
            shutil.rmtree(made, ignore_errors=True)


def _exchange(path: Path, made: Path) -> None:
    """Put `made` in the place of `path`, which comes back where that fails."""
    old = made.with_suffix(".old")
    try:
        if path.exists():
            path.rename(old)
        made.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check_free(path: Path, force: bool) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir():
        raise OutputError(f"{path}: a file is there", "choose another name")
    if not any(path.iterdir()):
        return
    if not force:
        raise OutputError(f"{path}: exists already", "choose another name, or replace it with --force")
    if reason := _no_mere_model(path):
        raise OutputError(f"{path}: not replaced: {reason}, so it is no mere model directory", "choose another name")


def _no_mere_model(path: Path) -> str | None:
    """Why a directory is not one that is written here and nothing else; None if it is."""
    if not (path / CONFIG_NAME).is_file():
        return f"has no {CONFIG_NAME}"
    sides = [path / name for name in EXTRAS if (path / name).is_dir()]
    files = [entry for directory in (path, *sides) for entry in directory.iterdir() if entry not in sides]
    weights = [file for file in files if file.is_file() and WEIGHT_FILE.fullmatch(file.name)]
    known = {*weights, *(path / name for name in COMPANIONS)}
    known |= {place / name for place in (path, *sides) for name in (CONFIG_NAME, WEIGHTS_INDEX)}
    foreign = sorted(file for file in files if file not in known or file.is_dir())
    if foreign:
        return f"holds {foreign[0].relative_to(path)}"
    return None if weights else "has no weights"
