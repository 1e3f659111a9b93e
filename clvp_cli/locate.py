"""Where a model's name leads: to an embedded model, a path, or a hub id's directory in the local cache.

Reads directories, and the index of a model's shards, alone; no network. Knows nothing of what models hold.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from .documents import read_json, short
from .errors import CheckpointError, ConfigError

ASSETS = Path(__file__).resolve().parent / "assets"
EMBEDDED = {"mini": ASSETS / "mini"}

HUB_ID = re.compile(r"(?:\w[\w.-]*/)?\w[\w.-]*")
REVISION = re.compile(r"\w[\w.+-]*(?:/\w[\w.+-]*)*")
DEFAULT_REVISION = "main"
CONFIG_NAME = "config.json"
# Weights in the published format, best first: of each directory the first kind that is there is taken.
WEIGHTS = (
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
)
TORTOISE_MODEL = ("autoregressive.pth", "clvp2.pth")
MODEL_DIRECTORIES = ("", ".models")  # Tortoise's own repository keeps its files in .models


def expanded(name: str | Path) -> Path:
    """A path with its ~ replaced by a home directory; as it is where there is none."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def model_path(name: str | Path, file: str | None = None) -> Path:
    """Where a model lies: an embedded name, a path, or a hub id in the local cache, of which `file` alone may be there.

    CheckpointError where there is none.
    """
    name = str(name)
    if name in EMBEDDED:
        return EMBEDDED[name]
    path = expanded(name)
    try:
        if path.exists():
            return path
    except OSError as error:
        raise CheckpointError(f"{short(name)}: cannot be read: {error.strerror}", "give a model's directory") from None
    found = (cached_model(name, file) if file else None) or cached_model(name)
    if found is None:
        raise CheckpointError(
            f"no model called {name!r}: no such directory, and not in the local hub cache",
            f"give a directory, {' or '.join(EMBEDDED)}, or fetch it first: clvp model fetch {name}",
        )
    return found


def model_file(name: str | Path, file: str) -> Path:
    """One .json of a model: `file` in its directory, or what the name itself leads to, if that is a .json."""
    path = model_path(name, file)
    return path if path.suffix == ".json" else path / file


def hub_cache() -> Path:
    """Where the hub's local cache lies: HF_HUB_CACHE, else under HF_HOME, else under the user's cache directory."""
    told = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return expanded(os.path.expandvars(told or f"{home}/hub"))


def split_id(name: str) -> tuple[str, str] | None:
    """A hub id, ORG/NAME or ORG/NAME@REVISION → (id, revision), "main" where none is named; None if it is no id."""
    hub_id, _, revision = name.partition("@")
    revision = revision if "@" in name else DEFAULT_REVISION
    fine = (
        HUB_ID.fullmatch(hub_id) and REVISION.fullmatch(revision) and not {"..", "--"} & set(re.findall("[.-]+", name))
    )
    return (hub_id, revision) if fine else None


def cached_model(name: str, file: str | None = None) -> Path | None:
    """The directory of a hub id in the local cache that holds `file`, or without one a whole model; None if none."""
    parts = split_id(name)
    if parts is None:
        return None
    repository = hub_cache() / f"models--{parts[0].replace('/', '--')}"
    try:
        commit = (repository / "refs" / parts[1]).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = parts[1]  # a commit itself, or nothing
    if not commit or "/" in commit or commit.startswith("."):
        return None
    snapshot = repository / "snapshots" / commit
    places = [snapshot / each for each in MODEL_DIRECTORIES]
    return next((place for place in places if ((place / file).is_file() if file else is_whole(place))), None)


def is_whole(directory: Path) -> bool:
    """Whether all weights of a model are in a directory: published ones, or Tortoise's, of which clvp2 comes last."""
    if not (directory / CONFIG_NAME).is_file():
        return (directory / TORTOISE_MODEL[-1]).is_file()
    first = next((directory / kind[0] for kind in WEIGHTS if (directory / kind[0]).is_file()), None)
    if first is None or first.suffix != ".json":
        return first is not None
    try:
        shards = set(read_json(first)["weight_map"].values())
        return bool(shards) and all((directory / shard).is_file() for shard in shards)
    except (OSError, ConfigError, LookupError, TypeError, AttributeError):
        return False
