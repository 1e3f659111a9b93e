"""What `clvp model info` tells: plain data, the same for both formats."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from checkpoint_makers import published_state, small_config, write_tortoise

from clvp_cli.checkpoints.info import describe
from clvp_cli.checkpoints.save import save_directory

CONFIG = small_config()
STATE = published_state(CONFIG)


def test_both_formats_are_described_alike(tmp_path: Path) -> None:
    """Parameters by part, sizes and abilities do not depend on the format; the rest is told."""
    save_directory(tmp_path / "m", CONFIG, STATE, extras={"codec": ({"num_codes": 30}, {"a": torch.ones(2)})})
    write_tortoise(tmp_path / "t", CONFIG, STATE)
    published, tortoise = describe(tmp_path / "m"), describe(tmp_path / "t")
    for key in ("parameters", "sizes", "can", "dtypes"):
        assert published[key] == tortoise[key]
    assert published["parameters"]["total"] == sum(tensor.numel() for tensor in STATE.values())
    assert published["parameters"]["logit_scale"] == 1
    assert (published["format"], tortoise["format"]) == ("hf", "tortoise")
    assert published["extras"]["codec"]["parameters"] == 2
    assert [file["name"] for file in published["files"]] == ["model.safetensors", "codec/model.safetensors"]
    assert published["sizes"]["speech"] == {"layers": 1, "width": 64, "heads": 1, "vocabulary": 30, "projection": 64}
    assert json.loads(json.dumps(published)) == published


def test_part_of_a_model_tells_what_it_can(tmp_path: Path) -> None:
    """A judge alone is told to score, and files that are none of ours are named."""
    (write_tortoise(tmp_path / "t", CONFIG, STATE) / "autoregressive.pth").unlink()
    torch.save({"conv": torch.zeros(1)}, tmp_path / "t" / "vocoder.pth")
    told = describe(tmp_path / "t")
    assert told["can"] == ["score candidates"]
    assert told["ignored"] == {"vocoder.pth": "none of the models read here"}
