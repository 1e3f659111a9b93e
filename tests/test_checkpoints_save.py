"""Saving: the published layout exactly, whole or not at all, and never over something that is not a model."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_makers import published_state, small_config, write_tortoise
from safetensors.torch import load_file
from torch import Tensor

from clvp_cli.checkpoints import save, writer
from clvp_cli.checkpoints.load import open_checkpoint
from clvp_cli.checkpoints.save import COMPANIONS, save_checkpoint, save_directory
from clvp_cli.checkpoints.tensors import read_header
from clvp_cli.config import ClvpConfig
from clvp_cli.errors import CheckpointError, OutputError

CONFIG = small_config()
STATE = published_state(CONFIG)
GOLDEN = Path(__file__).parent / "golden"


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    """What is saved loads back bit for bit, also in shards and from the library's own reader."""
    save_directory(tmp_path / "m", CONFIG, STATE)
    save_directory(tmp_path / "n", CONFIG, STATE, max_shard_bytes=50_000)
    assert same(open_checkpoint(tmp_path / "m").state(), STATE)
    assert same(open_checkpoint(tmp_path / "n").state(), STATE)
    library = load_file(tmp_path / "m" / "model.safetensors")
    assert same({name: tensor for name, tensor in library.items() if name in STATE}, STATE)
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"config.json", "model.safetensors", *COMPANIONS}


def test_names_are_those_the_published_classes_save(tmp_path: Path) -> None:
    """Names, shapes and the rotary tables equal those of a directory that the published classes wrote."""
    config = ClvpConfig.from_dict(json.loads((GOLDEN / "hf_partial.json").read_text()))
    save_directory(tmp_path / "m", config, published_state(config))
    ours, theirs = read_header(tmp_path / "m" / "model.safetensors"), read_header(GOLDEN / "hf_partial.safetensors")
    assert {name: info.shape for name, info in ours.items()} == {name: info.shape for name, info in theirs.items()}
    name = "speech_encoder_model.rotary_pos_emb.inv_freq"
    tables = [load_file(path)[name] for path in (tmp_path / "m/model.safetensors", GOLDEN / "hf_partial.safetensors")]
    assert torch.equal(*tables)


def test_conversion_keeps_the_state_and_the_side_models(tmp_path: Path) -> None:
    """Tortoise's files, converted, load to the state that they load to themselves."""
    from clvp_cli.model.random_voice import RandomVoice, RandomVoiceConfig

    voice = RandomVoice(RandomVoiceConfig(hidden_size=64)).state_dict()
    torch.save(voice, write_tortoise(tmp_path / "t", CONFIG, STATE) / "rlg_auto.pth")
    source = open_checkpoint(tmp_path / "t")
    save_checkpoint(source, tmp_path / "m")
    converted = open_checkpoint(tmp_path / "m")
    assert (converted.format, converted.config) == ("hf", source.config)
    assert same(converted.state(), source.state())
    assert same(converted.extras["random_voice"].state(), voice)


def test_part_of_a_model_is_saved_as_such(tmp_path: Path) -> None:
    """A judge without a decoder converts to a directory that can score."""
    (write_tortoise(tmp_path / "t", CONFIG, STATE) / "autoregressive.pth").unlink()
    save_checkpoint(open_checkpoint(tmp_path / "t"), tmp_path / "m")
    assert open_checkpoint(tmp_path / "m").parts == ("text", "speech")


def test_weights_may_be_stored_in_half(tmp_path: Path) -> None:
    """dtype casts the weights, not the rotary tables, which halves would round."""
    save_directory(tmp_path / "m", CONFIG, STATE, dtype="BF16")
    infos = open_checkpoint(tmp_path / "m").tensors
    assert {info.dtype for name, info in infos.items() if not name.endswith("inv_freq")} == {"BF16"}
    assert infos["text_encoder_model.rotary_pos_emb.inv_freq"].dtype == "F32"
    loaded = open_checkpoint(tmp_path / "m").state()
    assert all(torch.equal(loaded[name], STATE[name].to(torch.bfloat16)) for name in STATE)


def test_companions_come_from_the_source(tmp_path: Path) -> None:
    """Tokenizer and preprocessor files of the source are kept; the published ones fill the gaps."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "merges.txt").write_text("#version: 0.2\na b\n")
    settings = {"max_new_tokens": 7}
    save_directory(tmp_path / "m", CONFIG, STATE, companions=tmp_path / "s", generation_config=settings)
    assert (tmp_path / "m" / "merges.txt").read_text() == "#version: 0.2\na b\n"
    assert len(json.loads((tmp_path / "m" / "vocab.json").read_text())) >= 255
    assert json.loads((tmp_path / "m" / "generation_config.json").read_text()) == settings
    norms = json.loads((tmp_path / "m" / "preprocessor_config.json").read_text())["mel_norms"]
    assert (len(norms), round(max(norms), 2), round(min(norms), 2)) == (80, -1.6, -9.48)


def test_packed_forms_never_reach_disk(tmp_path: Path) -> None:
    """A state that is not the published one is refused, and nothing is written."""
    packed = {**STATE, "text_encoder_model.layers.0.self_attn.qkv": torch.zeros(3)}
    with pytest.raises(CheckpointError, match=r"1 unknown: .*qkv"):
        save_directory(tmp_path / "m", CONFIG, packed)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_kept_without_force(tmp_path: Path) -> None:
    """A model is replaced only with force, an empty directory is filled, a file is never replaced."""
    (tmp_path / "m").mkdir()
    save_directory(tmp_path / "m", CONFIG, STATE)
    with pytest.raises(OutputError, match="m: exists already"):
        save_directory(tmp_path / "m", CONFIG, STATE)
    other = published_state(CONFIG, seed=1)
    save_directory(tmp_path / "m", CONFIG, other, force=True)
    assert same(open_checkpoint(tmp_path / "m").state(), other)
    (tmp_path / "f").write_text("hello")
    with pytest.raises(OutputError, match="f: a file is there"):
        save_directory(tmp_path / "f", CONFIG, STATE, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "m"]


@pytest.mark.parametrize("foreign", ["notes.docx", "photos"])
def test_force_erases_no_one_elses_files(tmp_path: Path, foreign: str) -> None:
    """Force does not replace a directory that holds anything but a model."""
    save_directory(tmp_path / "m", CONFIG, STATE)
    (tmp_path / "m" / foreign).mkdir() if "." not in foreign else (tmp_path / "m" / foreign).write_text("mine")
    with pytest.raises(OutputError, match=f"not replaced: holds {foreign}"):
        save_directory(tmp_path / "m", CONFIG, STATE, force=True)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "package.json").write_text("{}")
    with pytest.raises(OutputError, match=r"has no config\.json"):
        save_directory(tmp_path / "p", CONFIG, STATE, force=True)


FOREIGN = ["notes.md", "tokenizer.json", "codec/notes.json", "codec/vocab.json", "vocab.json/x"]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_force_knows_the_names_that_are_written_here(tmp_path: Path, foreign: str) -> None:
    """One file more than a model has, in a side model too, keeps its directory; shards and sides are a model's."""
    codec = {"codec": ({"sizes": 1}, {"a": torch.ones(3)})}
    for _ in range(2):
        save_directory(tmp_path / "m", CONFIG, STATE, extras=codec, max_shard_bytes=50_000, force=True)
    (tmp_path / "m" / "vocab.json").unlink()
    (tmp_path / "m" / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / "m" / foreign).write_text("mine")
    named = foreign.removesuffix("/x")
    with pytest.raises(OutputError, match=f"not replaced: holds {named}, "):
        save_directory(tmp_path / "m", CONFIG, STATE, force=True)
    assert (tmp_path / "m" / foreign).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_force_replaces_no_bare_configuration(tmp_path: Path) -> None:
    """A directory with a config.json and no weights is somebody's work, not a model."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    with pytest.raises(OutputError, match="not replaced: has no weights"):
        save_directory(tmp_path / "m", CONFIG, STATE, force=True)


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    """A symbolic link to a model directory, or to a place for one, is followed and left as it is."""
    (tmp_path / "link").symlink_to(tmp_path / "m")
    for seed in range(2):
        save_directory(tmp_path / "link", CONFIG, published_state(CONFIG, seed), force=True)
        assert same(open_checkpoint(tmp_path / "m").state(), published_state(CONFIG, seed))
    assert (tmp_path / "link").is_symlink() and len(list(tmp_path.iterdir())) == 2


def test_a_model_replaces_no_part_of_itself(tmp_path: Path) -> None:
    """What lies in the source or holds it is not replaced, by whatever name; a new directory in it is fine."""
    save_directory(tmp_path / "a/m", CONFIG, STATE, extras={"codec": ({}, {"a": torch.ones(3)})})
    (tmp_path / "link").symlink_to(tmp_path / "a/m")
    source = open_checkpoint(tmp_path / "a/m")
    for place in ("a/m/codec", "link/codec", "a/m/phones", "a"):
        with pytest.raises(OutputError, match="lies in the model that is read"):
            save_checkpoint(source, tmp_path / place, force=True)
    save_checkpoint(source, tmp_path / "a/m/copy")
    assert same(open_checkpoint(tmp_path / "a/m").extras["codec"].state(), {"a": torch.ones(3)})


def test_an_interrupt_while_it_is_put_in_place_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the renames, or while the old model is erased, leaves the new model and nothing beside it."""
    save_directory(tmp_path / "m", CONFIG, STATE)
    other = published_state(CONFIG, seed=1)
    rename, erase = Path.rename, shutil.rmtree

    def interrupted(act: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*args: Any, **kwargs: Any) -> object:
            signal.raise_signal(signal.SIGINT)
            return act(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(Path, "rename", interrupted(rename))
    monkeypatch.setattr(shutil, "rmtree", interrupted(erase))
    with pytest.raises(KeyboardInterrupt):
        save_directory(tmp_path / "m", CONFIG, other, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert same(open_checkpoint(tmp_path / "m").state(), other)


def test_converting_in_place_reads_before_it_replaces(tmp_path: Path) -> None:
    """A directory saved over itself keeps its weights."""
    save_directory(tmp_path / "m", CONFIG, STATE)
    save_checkpoint(open_checkpoint(tmp_path / "m"), tmp_path / "m", force=True, dtype="BF16")
    loaded = open_checkpoint(tmp_path / "m").state()
    assert all(torch.equal(loaded[name], STATE[name].to(torch.bfloat16)) for name in STATE)


def test_full_disk_leaves_nothing_and_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails midway, what was there stays and no half-written directory is left."""
    save_directory(tmp_path / "m", CONFIG, STATE)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        save_directory(tmp_path / "m", CONFIG, published_state(CONFIG, seed=1), force=True)
    with pytest.raises(OutputError, match="No space left"):
        save_directory(tmp_path / "n", CONFIG, STATE)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert same(open_checkpoint(tmp_path / "m").state(), STATE)


def test_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while writing leaves no directory behind."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(save, "write_companions", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_directory(tmp_path / "m", CONFIG, STATE)
    assert not list(tmp_path.iterdir())


def test_generation_settings_name_the_decoders_own_ids(tmp_path: Path) -> None:
    """generation_config.json starts and stops where the decoder does, whatever its vocabulary."""
    save_directory(tmp_path / "m", CONFIG, STATE)
    saved = json.loads((tmp_path / "m" / "generation_config.json").read_text(encoding="utf-8"))
    decoder = CONFIG.decoder_config
    assert (saved["bos_token_id"], saved["eos_token_id"]) == (decoder.bos_token_id, decoder.eos_token_id)
    assert (saved["do_sample"], saved["max_new_tokens"]) == (True, 256)
