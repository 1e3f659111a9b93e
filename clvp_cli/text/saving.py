"""A tokenizer's directory: vocab.json, merges.txt, tokenizer_config.json, or Tortoise's tokenizer.json.

Owns which files stand for a tokenizer and what its configuration may say. Knows nothing of splitting or normalising.
"""

from __future__ import annotations

import codecs
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clvp_cli.documents import read_json, short
from clvp_cli.errors import ConfigError, InputError, OutputError, TextError
from clvp_cli.text.vocabulary import (
    MERGES_FILE,
    TORTOISE_FILE,
    VOCAB_FILE,
    Vocabulary,
    checked_ids,
    format_merges,
    format_vocab,
    read_tortoise,
    read_vocabulary,
)

if TYPE_CHECKING:
    from clvp_cli.text.tokenizer import ClvpTokenizer

CONFIG_FILE = "tokenizer_config.json"
# Our own settings have names of their own: transformers refuses a saved `normalizer`, its tokenizer has one.
_OWN_SETTINGS = {"clvp_normalizer": "normalizer", "clvp_scheme": "scheme"}
_SAVED: dict[str, Any] = {
    "errors": str,
    **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), str | dict),
    **dict.fromkeys(("add_prefix_space", "add_bos_token", "add_eos_token"), bool),
    "model_max_length": int | float,
    "padding_side": str,
    "truncation_side": str,
    "clean_up_tokenization_spaces": bool,
}


def has_vocabulary(directory: Path) -> bool:
    """Whether any file of a tokenizer's vocabulary is there."""
    return any((directory / name).exists() for name in (VOCAB_FILE, MERGES_FILE, TORTOISE_FILE))


def read_directory(path: Path) -> tuple[Vocabulary, dict[str, Any]]:
    """The vocabulary, and the arguments that tokenizer_config.json holds, of a directory or a tokenizer.json.

    Raises:
        InputError: no such directory, a file of the pair missing, a file that cannot be read.
    """
    if path.is_file():
        return read_tortoise(path), {}
    if not has_vocabulary(path):
        raise InputError(f"no tokenizer in {path}", hint=f"expected {VOCAB_FILE} and {MERGES_FILE}, or {TORTOISE_FILE}")
    has_pair = any((path / name).exists() for name in (VOCAB_FILE, MERGES_FILE))
    both = has_pair and all((path / name).exists() for name in (VOCAB_FILE, MERGES_FILE))
    if has_pair and not both and not (path / TORTOISE_FILE).exists():
        missing = MERGES_FILE if (path / VOCAB_FILE).exists() else VOCAB_FILE
        raise InputError(f"{path} has no {missing}", hint="a vocabulary is two files: copy the other one too")
    vocabulary = read_vocabulary(path / VOCAB_FILE, path / MERGES_FILE) if both else read_tortoise(path / TORTOISE_FILE)
    return vocabulary, _read_settings(path / CONFIG_FILE)


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        config = read_json(path)
    except ConfigError as error:
        raise InputError(error.message, error.hint) from error
    settings = {key: config[key] for key in (*_SAVED, "added_tokens_decoder") if config.get(key) is not None}
    for key, value in settings.items():
        if not isinstance(value, _SAVED.get(key, dict)) or not _meant(key, value):
            raise InputError(f"{path}: {key} is {short(value)}", "fetch or convert the model again")
    own = {name: config[key] for key, name in _OWN_SETTINGS.items() if key in config}
    if odd := [name for name, value in own.items() if not isinstance(value, str | None)]:
        raise InputError(f"{path}: {odd[0]} is {short(own[odd[0]])}", "fetch or convert the model again")
    return settings | own


def _meant(key: str, value: Any) -> bool:
    """Whether a setting of the right type is one that can be used."""
    if key == "errors":
        try:
            return bool(codecs.lookup_error(value))
        except (LookupError, ValueError):
            return False
    return value in ("left", "right") if key.endswith("_side") else not isinstance(value, float) or math.isfinite(value)


def token_text(token: Any) -> str:
    """The text of a special token: a string, an AddedToken, or a saved one ({"content": …})."""
    text = token.get("content") if isinstance(token, dict) else getattr(token, "content", token)
    if not isinstance(text, str) or not text:
        raise TextError(f"{short(token)} is no special token", hint="pass a string that is not empty")
    return text


def added_tokens(saved: dict[Any, Any]) -> dict[str, int]:
    """Token → id, of a saved ``added_tokens_decoder`` (id → token)."""
    try:
        added = {token_text(token): int(index) for index, token in saved.items()}
    except (AttributeError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"the saved added_tokens_decoder cannot be read: {str(error)[:120]}") from error
    return checked_ids(added, "added_tokens_decoder") if added else {}


def plain_ids(ids: Any) -> list[int]:
    """A list of int, from a list, an array or a tensor (S,); TextError for anything else."""
    values = ids.tolist() if hasattr(ids, "tolist") else ids
    values = [values] if isinstance(values, int) else list(values)
    if any(isinstance(value, bool) or not hasattr(value, "__index__") for value in values):
        raise TextError("ids are whole numbers, in one row", hint="decode several rows with batch_decode")
    return [int(value) for value in values]


def write_vocabulary(vocabulary: Vocabulary, directory: Path, prefix: str | None) -> tuple[str, str]:
    """Write vocab.json and merges.txt into a directory that exists."""
    if not directory.is_dir():
        raise OutputError(f"{directory} is no directory", hint="create it first, or use save_pretrained")
    vocab_path, merges_path = (directory / _named(name, prefix) for name in (VOCAB_FILE, MERGES_FILE))
    _write(vocab_path, format_vocab(vocabulary.ids))
    _write(merges_path, format_merges(vocabulary.merges))
    return str(vocab_path), str(merges_path)


def write_all(tokenizer: ClvpTokenizer, directory: Path, prefix: str | None) -> tuple[str, ...]:
    """Write the vocabulary and the configuration; creates the directory."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create {directory}: {error.strerror}") from error
    config: dict[str, Any] = {name: getattr(tokenizer, name) for name in _SAVED}
    special = set(tokenizer.all_special_tokens)
    config["added_tokens_decoder"] = {
        str(index): {
            "content": token,
            "special": token in special,
            **dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False),
        }
        for token, index in tokenizer.get_added_vocab().items()
    }
    config["tokenizer_class"] = "ClvpTokenizer"
    config.update(clvp_normalizer=tokenizer.normalizer_name, clvp_scheme=tokenizer.scheme)
    path = directory / _named(CONFIG_FILE, prefix)
    _write(path, json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return (str(path), *write_vocabulary(tokenizer.vocabulary, directory, prefix))


def _named(name: str, prefix: str | None) -> str:
    return f"{prefix}-{name}" if prefix else name


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
