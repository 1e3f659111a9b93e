"""The reference systems, imported: transformers' CLVP, Tortoise's models, the autoencoder of mel codes.

Owns how they are made importable (requirements.txt says how they are installed). Knows nothing of this project's
package, so that the golden files can be made without it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

TRANSFORMERS = "4.46.3"
TORTOISE = "3.0.0"
PACKAGES = ("torch", "transformers", "tortoise-tts", "coqui-tts", "torchaudio", "tokenizers", "numpy")


def versions() -> dict[str, str]:
    """The installed version of each package that decides a reference result; missing ones are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def why_not() -> str | None:
    """The reason why the references cannot be used here, or None when they can."""
    have = versions()
    for package, wanted in (("transformers", TRANSFORMERS), ("tortoise-tts", TORTOISE)):
        if have.get(package) != wanted:
            return f"needs {package} {wanted}, found {have.get(package, 'none')}: run `make oracle`"
    return None


def prepare() -> None:
    """Make `import tortoise…` work beside a CPU build of torch. Call before the first import of it.

    torchaudio's compiled library does not load beside this torch, and nothing here needs it: its extension module is
    replaced by one that says it is not there. Its mel transform and resampler are pure Python.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    extension: Any = ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension.fail_if_no_align = lambda function: function
    sys.modules.setdefault("torchaudio._extension", extension)


def discrete_vae() -> Any:
    """The class DiscreteVAE, Tortoise's autoencoder, as coqui-tts carries it; the rest of that package stays unread."""
    prepare()
    helpers: Any = ModuleType("TTS.utils.generic_utils")
    helpers.is_pytorch_at_least_2_4 = lambda: True
    for name, module in (
        ("TTS", ModuleType("TTS")),
        ("TTS.utils", ModuleType("TTS.utils")),
        ("TTS.utils.generic_utils", helpers),
    ):
        sys.modules.setdefault(name, module)
    path = site_packages() / "TTS" / "tts" / "layers" / "xtts" / "dvae.py"
    spec = importlib.util.spec_from_file_location("reference_dvae", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: not there; install coqui-tts as requirements.txt says")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DiscreteVAE


def site_packages() -> Path:
    """Where the reference packages are installed."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise ImportError("transformers is not installed")
    return Path(spec.origin).parents[1]


def tokenizer_json() -> Path:
    """Tortoise's tokenizer.json, whose tables every tokenizer here is made of."""
    return site_packages() / "tortoise" / "data" / "tokenizer.json"


def write_published_vocabulary(directory: Path) -> Path:
    """vocab.json and merges.txt as the published model has them, from Tortoise's tokenizer.json. Returns directory."""
    import json

    model = json.loads(tokenizer_json().read_text("utf-8"))["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), "utf-8")
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    return directory
