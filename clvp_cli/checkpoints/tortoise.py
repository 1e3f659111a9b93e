"""Tortoise's own files, in a directory or one by one, told apart by the names inside them.

Owns which file is which and how the sizes they show make one configuration. The tables are in tortoise_*.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import ClvpConfig
from ..documents import read_json
from ..errors import CheckpointError
from ..locate import CONFIG_NAME
from . import tortoise_autoregressive, tortoise_clvp, tortoise_cvvp, tortoise_dvae, tortoise_rlg
from .adapter import Adapted, MainSizes
from .checkpoint import Checkpoint, Extra
from .layout import TEXT_ROWS
from .load import open_extras
from .tensors import Shards, TensorStore, open_tensors

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
WHAT_IS_READ = (
    "a model is a directory with config.json and weights, or with Tortoise's autoregressive.pth and clvp2.pth"
)


@dataclass(frozen=True)
class Kind:
    """One of Tortoise's files: its usual name, the names that give it away, and what it is here."""

    file: str
    signature: tuple[str, ...]
    extra: str | None = None  # the side model it is, None for the model itself


AUTOREGRESSIVE = Kind("autoregressive.pth", tortoise_autoregressive.SIGNATURE)
CLVP = Kind("clvp2.pth", tortoise_clvp.SIGNATURE)
KINDS = (
    AUTOREGRESSIVE,
    CLVP,
    Kind("cvvp.pth", tortoise_cvvp.SIGNATURE, "cvvp"),
    Kind("rlg_auto.pth", tortoise_rlg.SIGNATURE, "random_voice"),
    Kind("dvae.pth", tortoise_dvae.SIGNATURE, "codec"),
)
ADAPTERS: Mapping[str, Callable[[TensorStore, MainSizes], tuple[dict[str, Any], Adapted]]] = {
    "cvvp": tortoise_cvvp.adapt,
    "random_voice": tortoise_rlg.adapt,
    "codec": tortoise_dvae.adapt,
}


def open_tortoise(path: Path) -> Checkpoint:
    """Open Tortoise's files at `path`, a directory or one file; raises CheckpointError where none of them is there."""
    found, ignored = _find(path)
    directory = path if path.is_dir() else path.parent
    config = _config(directory, found.get(AUTOREGRESSIVE.file), found.get(CLVP.file))
    stores = _main_stores(config, found)
    extras = {
        **side_models(found, _main_sizes(config, found), ignored),
        **(open_extras(directory) if path.is_dir() else {}),
    }
    return Checkpoint(path, "tortoise", config, Shards(stores), extras, ignored)


def side_models(found: Mapping[str, TensorStore], main: MainSizes, ignored: dict[str, str]) -> dict[str, Extra]:
    """The side models among the opened files (by usual name); those for other models are noted in `ignored`."""
    extras: dict[str, Extra] = {}
    for kind in KINDS:
        store = found.get(kind.file)
        if store is None or kind.extra is None:
            continue
        path = store.files[0]
        try:
            shown, adapted = ADAPTERS[kind.extra](store, main)
        except tortoise_rlg.OtherWidthError as error:
            ignored[path.name] = error.message.removeprefix(f"{path}: ")
            continue
        extras[kind.extra] = Extra(kind.extra, path, "tortoise", shown, adapted)
    return extras


def _find(path: Path) -> tuple[dict[str, TensorStore], dict[str, str]]:
    """Usual name → opened file, and the files that are none of ours with the reason."""
    found: dict[str, TensorStore] = {}
    ignored: dict[str, str] = {}
    usual = {kind.file for kind in KINDS}
    candidates = [path] if path.is_file() else sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)
    for file in sorted(candidates, key=lambda each: each.name not in usual):  # the usual names first
        try:
            store = open_tensors(file)
        except CheckpointError as error:
            if file.name in usual or file == path:
                raise
            ignored[file.name] = error.message.removeprefix(f"{file}: ")
            continue
        kind = next((kind for kind in KINDS if all(name in store.infos for name in kind.signature)), None)
        if kind is None:
            ignored[file.name] = "none of the models read here"
        elif kind.file not in found:
            found[kind.file] = store
        elif found[kind.file].files[0].name != kind.file:
            raise CheckpointError(
                f"{path}: {found[kind.file].files[0].name} and {file.name} are both a {kind.file}",
                f"keep one, or name the one meant {kind.file}",
            )
        else:
            ignored[file.name] = f"{kind.file} is there already"
    if not found:
        raise CheckpointError(f"{path}: no model in it", _seen(ignored))
    return found, ignored


def _seen(ignored: Mapping[str, str]) -> str:
    told = "; ".join(f"{name}: {reason}" for name, reason in list(ignored.items())[:3])
    return WHAT_IS_READ + (f" ({told})" if told else "")


def _config(directory: Path, autoregressive: TensorStore | None, clvp: TensorStore | None) -> ClvpConfig:
    """One configuration from the sizes the files show; a config.json beside them has the last word."""
    shown: dict[str, Any] = {}
    if autoregressive is not None:
        _merge(shown, tortoise_autoregressive.sizes(autoregressive))
    rows = shown.get("text_config", {}).get("vocab_size")
    if clvp is not None:
        _merge(shown, tortoise_clvp.sizes(clvp))
    if rows is not None and rows != shown["text_config"]["vocab_size"]:
        shown["decoder_config"][TEXT_ROWS] = rows  # a fine-tune with its own text vocabulary
    if (directory / CONFIG_NAME).exists():
        _merge(shown, read_json(directory / CONFIG_NAME))
    return ClvpConfig.from_dict(shown)


def _main_sizes(config: ClvpConfig, found: Mapping[str, TensorStore]) -> MainSizes:
    """What the main files say of the decoder's width and the codes, as far as they are there."""
    if AUTOREGRESSIVE.file in found:
        return MainSizes(config.decoder_config.hidden_size, config.decoder_config.bos_token_id)
    return MainSizes(None, config.speech_config.vocab_size if CLVP.file in found else None)


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for name, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(name, {}), dict):
            _merge(into.setdefault(name, {}), value)
        else:
            into[name] = value


def _main_stores(config: ClvpConfig, found: Mapping[str, TensorStore]) -> list[TensorStore]:
    stores: list[TensorStore] = []
    if AUTOREGRESSIVE.file in found:
        decoder = config.decoder_config
        stores.append(
            Adapted(
                found[AUTOREGRESSIVE.file],
                tortoise_autoregressive.table(
                    decoder.num_hidden_layers, decoder.num_mel_attn_blocks, decoder.num_attention_heads
                ),
            )
        )
    if CLVP.file in found:
        layers = {"text": config.text_config.num_hidden_layers, "speech": config.speech_config.num_hidden_layers}
        stores.append(Adapted(found[CLVP.file], tortoise_clvp.table(layers)))
    return stores
