"""What several tests share: where the real speech lies, if it does; a tiny random model; the program in here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from command_line import Cli

ROOT = Path(__file__).resolve().parents[1]


def shared_data() -> Path:
    """The directory of real speech beside the project; skips the test where it is absent."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("real speech (../shared/data) is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of random weights, without a codec."""
    from clvp_cli.checkpoints.random import random_directory

    path = tmp_path_factory.mktemp("models") / "plain"
    random_directory(path, "tiny", seed=1)
    return path


@pytest.fixture(scope="session")
def tiny_model(plain_model: Path) -> Path:
    """The same model with a tiny codec."""
    import shutil

    import torch
    from safetensors.torch import save_file

    from clvp_cli.checkpoints.save import json_text
    from clvp_cli.model.codec import Codec, CodecConfig

    path = plain_model.with_name("tiny")
    shutil.copytree(plain_model, path)
    config = CodecConfig(codebook_dim=16, hidden_size=8, num_residual_blocks=1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        codec = Codec(config)
    (path / "codec").mkdir()
    (path / "codec" / "config.json").write_text(json_text(config.to_dict()), encoding="utf-8")
    save_file(codec.state_dict(), path / "codec" / "model.safetensors")
    return path


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path) -> Cli:
    """The program in this process, in an empty directory, with the tiny model as its default."""
    from command_line import Cli

    for name in [name for name in os.environ if name.startswith("CLVP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLVP_USER_CONFIG", os.devnull)
    monkeypatch.setenv("CLVP_MODEL", str(tiny_model))
    monkeypatch.chdir(tmp_path)
    return Cli(capfd, monkeypatch)
