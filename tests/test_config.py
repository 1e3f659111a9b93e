"""Model configurations: the published names and defaults, and config.json files as they are found."""

from __future__ import annotations

import dataclasses
import json

import pytest

from clvp_cli.config import ClvpConfig, ClvpDecoderConfig, ClvpEncoderConfig
from clvp_cli.errors import ConfigError


def test_defaults_are_the_published_ones() -> None:
    """The three classes have the documentation's defaults."""
    config = ClvpConfig()
    assert (config.projection_dim, config.logit_scale_init_value, config.model_type) == (768, 2.6592, "clvp")
    text = config.text_config
    assert (text.vocab_size, text.hidden_size, text.intermediate_size, text.num_hidden_layers) == (256, 768, 1536, 20)
    decoder = config.decoder_config
    assert (decoder.vocab_size, decoder.max_position_embeddings, decoder.max_text_tokens) == (8194, 608, 404)
    assert decoder.decoder_fixing_codes == [83, 45, 45, 248]


def test_parts_come_together() -> None:
    """from_sub_model_configs keeps each part; parts may be dicts; positional arguments keep their order."""
    speech = ClvpEncoderConfig(8192, hidden_size=96)
    config = ClvpConfig.from_sub_model_configs(ClvpEncoderConfig(), speech, ClvpDecoderConfig(num_hidden_layers=3))
    assert config.speech_config.vocab_size == 8192 and config.decoder_config.num_hidden_layers == 3
    assert ClvpConfig(speech_config={"vocab_size": 8192, "hidden_size": 96}).speech_config == speech


def test_a_file_survives_the_round_trip(tmp_path) -> None:
    """Unknown keys of a config.json are kept and written back, in the parts too."""
    config = ClvpConfig(decoder_config={"n_ctx": 1024, "num_hidden_layers": 2}, torch_dtype="float32")
    config.save_pretrained(tmp_path / "made")
    assert ClvpConfig.from_pretrained(tmp_path / "made") == config
    written = json.loads((tmp_path / "made" / "config.json").read_text())
    assert written["torch_dtype"] == "float32" and written["decoder_config"]["n_ctx"] == 1024
    assert ClvpDecoderConfig.from_pretrained(tmp_path / "made").num_hidden_layers == 2
    assert ClvpEncoderConfig.from_pretrained(tmp_path / "made", config_type="speech_config") == config.speech_config


@pytest.mark.parametrize(
    "bad",
    [
        {"text_config": {"hidden_size": "wide"}},
        {"text_config": {"hidden_size": 770}},
        {"decoder_config": {"num_attention_heads": 0}},
        {"decoder_config": {"decoder_fixing_codes": [1, 2]}},
        {"text_config": {"summary_type": "median"}},
        {"text_config": [1]},
        {"logit_scale_init_value": "high"},
        {"decoder_config": {"vocab_size": -1}},
        {"decoder_config": {"n_inner": "x"}},
        {"speech_config": {"num_hidden_layers": -1}},
        {"speech_config": {"projection_dim": 10**9}},
        {"speech_config": {"hidden_size": 10**4000}},
        {"speech_config": {"use_rotary_embedding": "no"}},
        {"speech_config": {"hidden_act": ["gelu"]}},
        {"speech_config": {"summary_type": "x" * 10**6}},
        {"logit_scale_init_value": float("nan")},
        {"logit_scale_init_value": 10**400},
        {"extra": 5},
        {"text_config": {"dropout": 1.5}},
        {"decoder_config": {"resid_pdrop": -1}},
    ],
)
def test_what_cannot_be_is_an_error(bad) -> None:
    """Values of the wrong type or size name their place."""
    with pytest.raises(ConfigError) as caught:
        ClvpConfig.from_dict(bad)
    assert len(caught.value.message) < 250


def test_a_model_of_a_billion_layers_is_not_built() -> None:
    """Where no weights tell how many layers there are, the configuration's number is bounded."""
    config = ClvpConfig.from_dict({"speech_config": {"num_hidden_layers": 10**9}})
    with pytest.raises(ConfigError, match=r"ClvpEncoderConfig\.num_hidden_layers"):
        config.check_depth()


def test_a_key_may_have_any_name() -> None:
    """A key of a config.json that is a word of the program is kept like any other unknown one."""
    assert ClvpConfig.from_dict({"self": 1, "args": 2}).extra == {"self": 1, "args": 2}


@pytest.mark.parametrize("content", ["{", "[1]", "", "\x00\x01"])
def test_a_damaged_file_is_an_error(tmp_path, content) -> None:
    """A config.json that is cut short or no object names the file."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        ClvpConfig.from_pretrained(tmp_path)


def test_configurations_are_frozen() -> None:
    """A configuration cannot be changed; a changed copy can be made."""
    config = ClvpEncoderConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_size = 3  # type: ignore[misc]
    assert dataclasses.replace(config, rms_norm="clamp").rms_norm == "clamp"
