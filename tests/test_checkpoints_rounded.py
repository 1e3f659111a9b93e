"""Directories with the decoder in 8 bits: what they hold, that they are that rounding and no other, and strictness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clvp_cli.checkpoints.load import open_checkpoint
from clvp_cli.checkpoints.rounded import FED, widened
from clvp_cli.errors import CheckpointError, UsageError
from clvp_cli.generation.engine import Prompt, generate
from clvp_cli.modelcare import convert_model, random_model
from clvp_cli.pipeline import Clvp
from clvp_cli.published.model import ClvpForCausalLM
from clvp_cli.records import Candidate
from clvp_cli.settings import SamplingSettings, Settings

OPTIONS = SamplingSettings(max_codes=12, min_codes=12)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """A random model in float32 with two outlying channels, and the same with its decoder in 8 bits."""
    base = tmp_path_factory.mktemp("rounded")
    random_model(base / "wide", seed=3)
    state = load_file(base / "wide" / "model.safetensors")
    for norm, matrices in FED.items():
        layer = "speech_decoder_model.model.decoder.layers.1."
        state[f"{layer}{norm}.weight"][[5, 40]] *= 50
        for matrix in matrices:
            state[layer + matrix][([5, 40],) if "mlp" in matrix else (slice(None), [5, 40])] /= 50
    save_file(state, base / "wide" / "model.safetensors", {"format": "pt"})
    facts = convert_model(str(base / "wide"), base / "narrow", "int8")
    return base / "wide", base / "narrow", facts


def codes(path, dtype, **sampling):
    clvp = Clvp.load(path, Settings(dtype=dtype, sampling=SamplingSettings(**sampling)))
    prefix = torch.randn(9, 64, generator=torch.Generator().manual_seed(1)) * 0.1
    made = generate(clvp.core.decoder, [Prompt(prefix.to(clvp.core.dtype), 5, range(3))], OPTIONS)
    return clvp, sorted((g.index, g.codes.tolist(), g.logprob) for g in made)


def test_it_is_told_what_is_rounded(directories):
    """As many parameters as before, the decoder's matrices and its table of codes among them in a byte each."""
    wide, narrow, facts = directories
    table = open_checkpoint(wide).config.decoder_config.vocab_size * 64
    matrices = 2 * 12 * 64 * 64 + table
    assert facts["dtypes"]["I8"] == matrices
    assert facts["parameters"]["total"] == sum(value for key, value in facts["parameters"].items() if key != "total")
    saved = (wide / "model.safetensors").stat().st_size - (narrow / "model.safetensors").stat().st_size
    assert 0.9 * 3 * matrices < saved < 3 * matrices


def test_candidates_are_those_of_rounding_while_loading(directories):
    """int8 from the directory is, to the bit, int8 from the model it was made from, and what auto chooses there."""
    wide, narrow, _ = directories
    assert codes(narrow, "int8")[1] == codes(wide, "int8")[1]
    assert codes(narrow, "auto")[0].core.precision.name == "int8"
    assert codes(narrow, "auto", greedy=True)[0].core.precision.name == "float32"
    assert len(codes(narrow, "float32")[1]) == 3


def test_a_norm_gives_up_what_its_columns_gain(directories):
    """What a norm has made large is made small in the norm and large in the rounded columns, by the same power of 2."""
    wide, narrow = (load_file(path / "model.safetensors") for path in directories[:2])
    layer = "speech_decoder_model.model.decoder.layers.1."
    for norm, (matrix, *_) in FED.items():
        gain = wide[f"{layer}{norm}.weight"] / narrow[f"{layer}{norm}.weight"]
        assert set(gain[[5, 40]].tolist()) <= {32.0, 64.0} and gain.median() == 1
        name = layer + matrix
        stood = widened(name, narrow[name], narrow[name + "_scale"]) / (gain[:, None] if "mlp" in matrix else gain)
        off = (stood - wide[name]).abs()
        assert off[([5, 40],) if "mlp" in matrix else (slice(None), [5, 40])].max() < 0.05 * off.max()


def test_the_table_of_codes_is_widened_in_every_type(directories):
    """Packed as int8, float32 or bfloat16, a code's vector is what its whole numbers and scale stand for."""
    table = ClvpForCausalLM.from_pretrained(directories[1]).model.decoder.input_embeds_layer.weight
    for dtype in ("int8", "float32", "bfloat16"):
        packed = Clvp.load(directories[1], Settings(dtype=dtype)).core.decoder.stack.input_embeds_layer.weight
        torch.testing.assert_close(packed.float(), table, atol=2e-3, rtol=1e-2)


def test_scores_are_those_of_the_model(directories):
    """The encoders are left alone, so scores are the same to the bit."""
    candidates = [Candidate(np.arange(40), True, 0), Candidate(np.arange(60) * 3, True, 1)]
    one, other = (Clvp.load(path).rank("A sentence.", candidates) for path in directories[:2])
    assert [r.score for r in one] == [r.score for r in other]


def test_other_readers_get_wide_weights(directories):
    """The published classes load the directory as the floats that it stands for."""
    made = ClvpForCausalLM.from_pretrained(directories[1])
    state = load_file(directories[1] / "model.safetensors")
    name = "model.decoder.layers.0.mlp.c_fc.weight"
    levels, scale = (state[f"speech_decoder_model.{name}{end}"] for end in ("", "_scale"))
    assert levels.dtype == torch.int8 and torch.equal(made.state_dict()[name], levels.float() * scale)


def test_a_lost_scale_is_missed(directories, tmp_path):
    """A weight in 8 bits without its scales, or scales of another length, are errors that name them."""
    state = load_file(directories[1] / "model.safetensors")
    name = "speech_decoder_model.model.decoder.layers.1.attn.q_proj.weight_scale"
    (tmp_path / "config.json").write_text((directories[1] / "config.json").read_text())
    for wrong in (None, torch.ones(3)):
        broken = {key: value for key, value in state.items() if key != name} | ({} if wrong is None else {name: wrong})
        save_file(broken, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match=r"layers\.1\.attn\.q_proj\.weight_scale"):
            open_checkpoint(tmp_path)


def test_rounding_is_not_undone(directories, tmp_path):
    """A rounded model is copied as it is, and refused as another type."""
    convert_model(str(directories[1]), tmp_path / "copy")
    one, two = (load_file(path / "model.safetensors") for path in (directories[1], tmp_path / "copy"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(UsageError, match="int8 already"):
        convert_model(str(directories[1]), tmp_path / "wide", "float32")


def test_the_command_rounds(cli, directories):
    """`clvp model convert --dtype int8` says what it made."""
    result = cli.fine("model", "convert", directories[0], "made", "--dtype", "int8")
    assert result.records[0]["dtypes"]["I8"] == 98304 + 8194 * 64
