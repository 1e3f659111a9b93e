"""Reads the golden files (made by tests/golden/make.py from transformers 4.46.3 and tortoise-tts 3.0.0)."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import torch

from clvp_cli.checkpoints.load import open_checkpoint
from clvp_cli.checkpoints.modules import load_module
from clvp_cli.model.clvp import ClvpNetwork

GOLDEN = Path(__file__).parent / "golden"


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of one golden .npz."""
    with np.load(GOLDEN / f"{name}.npz") as loaded:
        return dict(loaded)


def tensors(name: str) -> dict[str, torch.Tensor]:
    """The arrays of one golden .npz as tensors, integers as int64."""
    made = {key: torch.from_numpy(np.asarray(value)) for key, value in arrays(name).items()}
    return {key: value.long() if not value.is_floating_point() else value for key, value in made.items()}


def hf_directory(name: str, directory: Path) -> Path:
    """A directory as transformers' save_pretrained leaves it, of the golden model of that name."""
    shutil.copy(GOLDEN / f"{name}.json", directory / "config.json")
    shutil.copy(GOLDEN / f"{name}.safetensors", directory / "model.safetensors")
    return directory


def tortoise_directory(directory: Path) -> Path:
    """A directory of Tortoise's files of the golden models; their heads are narrower than a real file's 64."""
    (directory / "config.json").write_text('{"decoder_config": {"num_attention_heads": 3}}')
    for file in ("autoregressive.pth", "clvp2.pth"):
        shutil.copy(GOLDEN / file, directory / file)
    return directory


def network(directory: Path) -> ClvpNetwork:
    """The whole network of a directory in float32."""
    checkpoint = open_checkpoint(directory)
    with torch.device("meta"):
        module = ClvpNetwork(checkpoint.config)
    load_module(module, checkpoint.state(), torch.float32)
    return module
