"""Published directories: whole or sharded, safetensors or pytorch_model.bin, and what is refused in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoint_makers import published_state, small_config
from torch import Tensor

from clvp_cli.checkpoints.load import open_checkpoint
from clvp_cli.checkpoints.save import save_directory
from clvp_cli.errors import CheckpointError, ConfigError

CONFIG = small_config()
STATE = published_state(CONFIG)
INDEX = "model.safetensors.index.json"


def saved(tmp_path: Path, max_shard_bytes: int = 10**9) -> Path:
    save_directory(tmp_path / "m", CONFIG, STATE, max_shard_bytes=max_shard_bytes)
    return tmp_path / "m"


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_every_way_of_storing_gives_the_same_state(tmp_path: Path) -> None:
    """One file, shards, pytorch_model.bin and its shards all load to the same tensors."""
    whole, sharded = saved(tmp_path / "1"), saved(tmp_path / "2", max_shard_bytes=100_000)
    assert len(list(sharded.glob("model-*-of-*.safetensors"))) > 3
    for name in ("3", "4"):
        save_directory(tmp_path / name, CONFIG, STATE)
        (tmp_path / name / "model.safetensors").unlink()
    torch.save(STATE, tmp_path / "3" / "pytorch_model.bin")
    names = sorted(STATE)
    parts = {"a.bin": names[:50], "b.bin": names[50:]}
    for file, held in parts.items():
        torch.save({name: STATE[name] for name in held}, tmp_path / "4" / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (tmp_path / "4" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    for directory in (whole, sharded, tmp_path / "3", tmp_path / "4"):
        checkpoint = open_checkpoint(directory)
        assert checkpoint.format == "hf"
        assert checkpoint.parts == ("conditioning", "decoder", "text", "speech")
        assert same(checkpoint.state(), STATE)


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b", 3, [1]])
def test_shard_outside_the_directory_is_refused(tmp_path: Path, shard: object) -> None:
    """An index that names a file elsewhere is refused, whether or not it exists."""
    directory = saved(tmp_path, max_shard_bytes=100_000)
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"]["logit_scale"] = shard
    (directory / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="refused: names the shard"):
        open_checkpoint(directory)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    """A shard that was not copied is told by name."""
    directory = saved(tmp_path, max_shard_bytes=100_000)
    next(directory.glob("model-00002*")).unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-\d+\.safetensors: missing"):
        open_checkpoint(directory)


def test_index_that_misplaces_a_name_is_refused(tmp_path: Path) -> None:
    """What the index says of a shard must be what the shard holds."""
    directory = saved(tmp_path, max_shard_bytes=100_000)
    index = json.loads((directory / INDEX).read_text())
    del index["weight_map"]["logit_scale"]
    (directory / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="logit_scale"):
        open_checkpoint(directory)
    (directory / INDEX).write_text("{}")
    with pytest.raises(CheckpointError, match="weight_map"):
        open_checkpoint(directory)
    shard = next(iter(index["weight_map"].values()))
    for odd in ({"x" * 10**5: shard}, {"a\n\nb": shard}, {"a": "y/" * 10**5}, {"a": [[1] * 10**5]}):
        (directory / INDEX).write_text(json.dumps({"weight_map": odd}))
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(directory)
        assert len(caught.value.message) < len(str(directory)) + 1000 and "\n" not in caught.value.message


@pytest.mark.parametrize("fault", ["missing", "unknown", "misshapen", "integer"])
def test_faulty_key_is_named(tmp_path: Path, fault: str) -> None:
    """A missing, unknown, misshapen or integer tensor is an error that names it, though only another part is wanted."""
    directory = saved(tmp_path)
    (directory / "model.safetensors").unlink()
    state = dict(STATE)
    name = "speech_decoder_model.model.decoder.layers.1.mlp.c_fc.weight"
    told = {"missing": f"1 missing: {name}", "unknown": "1 unknown: speech_decoder_model.packed"}
    if fault == "missing":
        del state[name]
    elif fault == "unknown":
        state["speech_decoder_model.packed"] = torch.zeros(1)
    else:
        state[name] = state[name].t().contiguous() if fault == "misshapen" else torch.zeros(64, 256, dtype=torch.int32)
        told |= {"misshapen": rf"1 misshapen: {name} \[256, 64\], not \[64, 256\]", "integer": f"{name} I32"}
    torch.save(state, directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=told[fault]):
        open_checkpoint(directory)


def test_many_faults_are_counted_not_listed(tmp_path: Path) -> None:
    """The first few names and the count are told, not hundreds of names."""
    directory = saved(tmp_path)
    (directory / "model.safetensors").unlink()
    torch.save(
        {"logit_scale": STATE["logit_scale"], "text_encoder_model.x": torch.zeros(1)}, directory / "pytorch_model.bin"
    )
    with pytest.raises(CheckpointError, match=r"\d\d missing: .*, …; 1 unknown") as caught:
        open_checkpoint(directory)
    assert len(caught.value.message) < 600


def test_configuration_is_needed(tmp_path: Path) -> None:
    """Weights without a config.json, or with a damaged one, are an error that names it."""
    directory = saved(tmp_path)
    (directory / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json"):
        open_checkpoint(directory)
    (directory / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors without a config\.json"):
        open_checkpoint(directory)


def test_one_file_beside_its_configuration_is_a_model(tmp_path: Path) -> None:
    """The weights file itself may be named instead of its directory."""
    directory = saved(tmp_path)
    assert same(open_checkpoint(directory / "model.safetensors").state(), STATE)


def test_another_models_weights_are_told(tmp_path: Path) -> None:
    """A directory of some other model is not taken for a broken one of ours."""
    directory = saved(tmp_path)
    (directory / "model.safetensors").unlink()
    torch.save({"bert.embeddings": torch.zeros(1)}, directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="none of its 1 names are those of a CLVP model"):
        open_checkpoint(directory)


def test_wrong_rotary_table_is_refused(tmp_path: Path) -> None:
    """A file whose rotary frequencies are not the configuration's would compute something else: refused."""
    directory = saved(tmp_path)
    (directory / "model.safetensors").unlink()
    name = "text_encoder_model.rotary_pos_emb.inv_freq"
    torch.save({**STATE, name: torch.ones(16)}, directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(directory).state(["text"])


def test_absurd_depth_is_told_at_once(tmp_path: Path) -> None:
    """A configuration of a billion layers is refused without making names for them."""
    directory = saved(tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config["decoder_config"]["num_hidden_layers"] = 10**9
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="calls for 1000000000 decoder layers"):
        open_checkpoint(directory)
