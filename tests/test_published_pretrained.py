"""from_pretrained and save_pretrained of the published classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from published_models import START, STOP, batch, small_config, small_model
from safetensors.torch import load_file

import clvp_cli
from clvp_cli import ClvpEncoder, ClvpForCausalLM, ClvpModelForConditionalGeneration
from clvp_cli.errors import CheckpointError, ConfigError, OutputError, UsageError


def same_state(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    "options", [{}, {"max_shard_size": "20KB"}, {"safe_serialization": False}], ids=["safetensors", "shards", "bin"]
)
def test_round_trip(options: dict[str, object], tmp_path: Path) -> None:
    """What is saved, in any of the formats, loads again to the same weights, configuration and generation settings."""
    model = small_model()
    model.generation_config.update(do_sample=True, max_new_tokens=11)
    model.save_pretrained(tmp_path / "made" / "here", **options)
    again = ClvpModelForConditionalGeneration.from_pretrained(tmp_path / "made" / "here")
    assert same_state(model, again) and not again.training and all(p.requires_grad for p in again.parameters())
    assert (
        again.generation_config == model.generation_config
        and again.config.decoder_config == model.config.decoder_config
    )
    config = json.loads((tmp_path / "made" / "here" / "config.json").read_text())
    assert config["architectures"] == ["ClvpModelForConditionalGeneration"] and config["torch_dtype"] == "float32"


def test_saving_over_an_earlier_save(tmp_path: Path) -> None:
    """A second save replaces the first one's weights, whatever its format, and leaves other files alone."""
    (tmp_path / "notes.txt").write_text("mine")
    for seed, options in enumerate(({"max_shard_size": "20KB"}, {"safe_serialization": False}, {})):
        model = small_model(seed)
        model.save_pretrained(tmp_path, **options)
        assert same_state(model, ClvpModelForConditionalGeneration.from_pretrained(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "notes.txt",
    ]


@pytest.mark.parametrize("name", ["ClvpEncoder", "ClvpDecoder", "ClvpModel", "ClvpForCausalLM"])
def test_parts(name: str, tmp_path: Path) -> None:
    """A part loads out of a whole model, saves itself, and loads from its own directory."""
    whole = small_model()
    whole.save_pretrained(tmp_path / "whole")
    kind = getattr(clvp_cli, name)
    part = kind.from_pretrained(tmp_path / "whole")
    causal = whole.speech_decoder_model
    original = {
        "ClvpEncoder": whole.text_encoder_model,
        "ClvpDecoder": causal.model.decoder,
        "ClvpModel": causal.model,
        "ClvpForCausalLM": causal,
    }[name]
    assert same_state(part, original)
    part.save_pretrained(tmp_path / "part")
    again = kind.from_pretrained(tmp_path / "part")
    assert same_state(again, part) and again.config.to_dict().items() >= part.config.to_dict().items()
    assert again.get_input_embeddings().weight.shape == original.get_input_embeddings().weight.shape


def test_which_encoder(tmp_path: Path) -> None:
    """config_type picks the speech encoder out of a whole model."""
    whole = small_model()
    whole.save_pretrained(tmp_path)
    assert same_state(ClvpEncoder.from_pretrained(tmp_path, config_type="speech_config"), whole.speech_encoder_model)
    with pytest.raises(ValueError, match="config_type 'speech'"):
        ClvpEncoder.from_pretrained(tmp_path, config_type="speech")


def test_options(tmp_path: Path) -> None:
    """Precision, device and overrides of the configuration act; an unknown argument is named."""
    small_model().half().save_pretrained(tmp_path)
    load = ClvpModelForConditionalGeneration.from_pretrained
    assert load(tmp_path).dtype == torch.float32
    assert load(tmp_path, torch_dtype="auto").dtype == torch.float16
    assert load(tmp_path, dtype="bfloat16", device_map={"": "cpu"}, local_files_only=True).dtype == torch.bfloat16
    encoder = ClvpEncoder.from_pretrained(tmp_path, output_hidden_states=True, device_map="cpu")
    assert len(encoder(torch.ones(1, 3, dtype=torch.long)).hidden_states) == 2
    with pytest.raises(UsageError, match="unknown argument 'tourch_dtype'"):
        load(tmp_path, tourch_dtype="auto")
    with pytest.raises(UsageError, match="torch_dtype 'int8'"):
        load(tmp_path, torch_dtype="int8")
    with pytest.raises(UsageError, match="one device"):
        load(tmp_path, device_map={"layers.0": "cpu"})


def test_generation_settings_without_a_file(tmp_path: Path) -> None:
    """Without generation_config.json, or with another model's in it, the stop code is the decoder's."""
    small_model().save_pretrained(tmp_path)
    for content in (None, '{"bos_token_id": 8192, "eos_token_id": 8193, "max_new_tokens": 7}'):
        path = tmp_path / "generation_config.json"
        path.unlink() if content is None else path.write_text(content)
        model = ClvpModelForConditionalGeneration.from_pretrained(tmp_path)
        assert (model.generation_config.bos_token_id, model.generation_config.eos_token_id) == (START, STOP)
        ids, features = batch()
        assert model.generate(ids, features)[0].shape[1] <= (38 if content is None else 7)


def test_weights_are_drawn_once_and_by_the_seed() -> None:
    """Two models of one seed are equal, parts and wholes alike, and the drawn spread is the published one."""
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        made.append((ClvpModelForConditionalGeneration(small_config()), ClvpForCausalLM(small_config().decoder_config)))
    for one, other in zip(*made, strict=True):
        assert same_state(one, other)
    assert 0.015 < float(made[0][1].lm_head.weight.detach().std()) < 0.025
    assert float(made[0][1].lm_head.bias.detach().abs().max()) == 0.0


def test_properties() -> None:
    """Device, precision and numbers of weights are told; embeddings can be replaced."""
    model = small_model()
    assert (model.device.type, model.dtype, model.can_generate()) == ("cpu", torch.float32, True)
    total = sum(p.numel() for p in model.parameters())
    assert model.num_parameters() == total > model.num_parameters(exclude_embeddings=True)
    model.logit_scale.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == total - 1
    for part in (model, model.speech_decoder_model, model.speech_encoder_model):
        table = torch.nn.Embedding(3, 4)
        part.set_input_embeddings(table)
        assert part.get_input_embeddings() is table


def test_refusals(tmp_path: Path) -> None:
    """A missing or incomplete model, a file in the way and a nonsense size are errors that say so."""
    load = ClvpModelForConditionalGeneration.from_pretrained
    with pytest.raises(CheckpointError, match="no model called"):
        load(tmp_path / "nothing")
    model = small_model()
    state = model.state_dict()
    state.pop("logit_scale")
    model.save_pretrained(tmp_path / "cut", state_dict=state)
    with pytest.raises(CheckpointError, match="1 missing: logit_scale"):
        load(tmp_path / "cut")
    model.speech_decoder_model.save_pretrained(tmp_path / "part")
    (tmp_path / "part" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        ClvpForCausalLM.from_pretrained(tmp_path / "part")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a file is there"):
        model.save_pretrained(tmp_path / "file")
    with pytest.raises(UsageError, match="max_shard_size 'big'"):
        model.save_pretrained(tmp_path / "sized", max_shard_size="big")
    with pytest.raises(ConfigError, match="takes a ClvpDecoderConfig"):
        ClvpForCausalLM(model.config)


def test_a_published_models_state_dict_loads(tmp_path: Path) -> None:
    """load_state_dict takes the published class's state as it is, rotary tables included, and is as strict as ever."""
    model, other = small_model(0), small_model(1)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert any(name.endswith("inv_freq") for name in state)
    other.load_state_dict(state)
    assert same_state(model, other)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(state | {"foreign": torch.zeros(1)})
