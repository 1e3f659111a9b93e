"""The codec: shapes, what padding must not change, the published sizes, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from clvp_cli.errors import ConfigError, InputError
from clvp_cli.model.codec import FLOOR, Codec, CodecConfig

SMALL = CodecConfig(
    num_codes=64, codebook_dim=8, hidden_size=16, unit_latents=True, relative=True, voice_dim=12, voice_hidden=16
)


@pytest.fixture
def codec() -> Codec:
    torch.manual_seed(0)
    made = Codec(SMALL).eval()
    made.bands.copy_(torch.linspace(-9, -2, 80))
    made.usual_level.fill_(-4.0)
    for layer in made.film:
        torch.nn.init.normal_(layer.weight, std=0.3)  # as after training: the voice matters
    return made


def speech(frames: int, rows: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 80, frames, generator=generator).cumsum(-1).tanh() + 0.5


def test_the_default_sizes_are_those_of_tortoises_dvae() -> None:
    """Every name and shape of dvae.pth that section 9 gives is the default codec's."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Codec(CodecConfig()).state_dict().items()}
    assert shapes["encoder.0.0.weight"] == (512, 80, 3)
    assert shapes["encoder.1.0.weight"] == (1024, 512, 3)
    assert {f"encoder.{i}.net.{j}.weight" for i in (2, 3, 4) for j in (0, 2, 4)} <= shapes.keys()
    assert shapes["encoder.5.weight"] == (512, 1024, 1)
    assert shapes["codebook.embed"] == (512, 8192)
    assert shapes["decoder.4.0.conv.weight"] == (1024, 1024, 3)
    assert shapes["decoder.6.weight"] == (80, 512, 1)
    assert not any(name.startswith(("voice", "film", "bands")) for name in shapes)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 86, 101])
def test_one_code_stands_for_four_frames(codec: Codec, frames: int) -> None:
    """F frames give ceil(ceil(F/2)/2) codes, and T codes 4 T frames."""
    codes = codec.encode(speech(frames))
    assert codes.shape == (1, math.ceil(math.ceil(frames / 2) / 2))
    assert codec.decode(codes).shape == (1, 80, 4 * codes.shape[1])


@pytest.mark.parametrize("config", [SMALL, CodecConfig(num_codes=64, codebook_dim=8, hidden_size=16)])
def test_a_clips_codes_are_those_it_has_alone(config: CodecConfig) -> None:
    """Padding, and what is in it, never changes codes."""
    torch.manual_seed(1)
    codec = Codec(config).eval()
    clips = [speech(frames, seed=frames) for frames in (31, 50, 77)]
    alone = [codec.encode(clip)[0] for clip in clips]
    batch = torch.full((3, 80, 90), 7.0)
    for row, clip in zip(batch, clips, strict=True):
        row[:, : clip.shape[2]] = clip[0]
    together = codec.encode(batch, torch.tensor([31, 50, 77]))
    for codes, row in zip(alone, together, strict=True):
        assert torch.equal(codes, row[: len(codes)])
        assert not row[len(codes) :].any()


def test_a_code_is_the_nearest_column_of_the_codebook(codec: Codec) -> None:
    """The Euclidean distance decides, as in the published codebook."""
    latents = torch.randn(200, 8)
    expected = torch.cdist(latents, codec.codebook.embed.t()).argmin(1)
    assert torch.equal(codec.codebook.nearest(latents), expected)


def test_the_voice_is_heard_in_what_is_decoded(codec: Codec) -> None:
    """Another voice, another mel; a voice's silent padding changes nothing."""
    codes = codec.encode(speech(60))
    first, second = speech(80, seed=1), speech(80, seed=2) * 1.4
    assert not torch.allclose(codec.decode(codes, first), codec.decode(codes, second), atol=1e-2)
    silence = (FLOOR / codec.bands)[None, :, None].expand(1, 80, 40)
    padded = codec.decode(codes, torch.cat((first, silence), dim=2))
    assert torch.allclose(codec.decode(codes, first), padded, atol=2e-2)


def test_codes_outside_the_codebook_and_wrong_mels_are_refused(codec: Codec) -> None:
    """Stop codes and misshapen mels are errors with a hint, not garbage."""
    with pytest.raises(InputError, match="outside the codebook"):
        codec.decode(torch.tensor([[3, 64]]))
    with pytest.raises(InputError, match="log-mels of shape"):
        codec.encode(torch.zeros(1, 40, 10))


def test_a_config_survives_json_and_rejects_unknown_keys() -> None:
    """What is saved is what is read; a misspelt key is named."""
    assert CodecConfig.from_dict(SMALL.to_dict()) == SMALL
    with pytest.raises(ConfigError, match="num_code"):
        CodecConfig.from_dict({"num_code": 3})


@pytest.mark.parametrize(
    "bad", [{"num_layers": 2**31}, {"num_layers": 30}, {"num_codes": 10**9}, {"relative": "x"}, {"num_layers": "2"}]
)
def test_sizes_that_no_codec_has_are_refused_before_it_is_built(bad: dict[str, object]) -> None:
    """A number that would build for ever, or fill the memory, is an error at once, as is another type."""
    with pytest.raises(ConfigError, match="codec "):
        CodecConfig.from_dict(bad)
