"""Opening and loading: only the parts asked for, strictly, cast without a second copy in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_makers import published_state, small_config, write_tortoise

from clvp_cli.checkpoints.load import open_checkpoint
from clvp_cli.checkpoints.modules import build_empty, load_module
from clvp_cli.checkpoints.save import save_directory
from clvp_cli.errors import CheckpointError, ConfigError
from clvp_cli.model.clvp import ClvpNetwork
from clvp_cli.model.encoder import Encoder

CONFIG = small_config()
STATE = published_state(CONFIG)
GOLDEN = Path(__file__).parent / "golden"


def test_part_is_all_that_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for one part reads the tensors of that part, with the scale, and no others."""
    from clvp_cli.checkpoints.tensors import SafetensorsFile

    save_directory(tmp_path / "m", CONFIG, STATE)
    touched: list[str] = []
    read = SafetensorsFile.tensors
    monkeypatch.setattr(
        SafetensorsFile, "tensors", lambda self, names: read(self, [touched.append(name) or name for name in names])
    )
    state = open_checkpoint(tmp_path / "m").state(["text"])
    assert state.keys() == {name for name in STATE if name.startswith(("text_encoder_model.", "logit_scale"))}
    assert all(name.startswith(("text_encoder_model.", "logit_scale")) for name in touched)


def test_module_is_filled_and_ready(tmp_path: Path) -> None:
    """A module made on the meta device has the file's weights, in eval mode and without gradients."""
    directory = write_tortoise(tmp_path, CONFIG, STATE)
    encoder = build_empty(lambda: Encoder(CONFIG.text_config))
    open_checkpoint(directory).load_into(encoder, "text_encoder_model.", None)
    assert not encoder.training
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in encoder.parameters())
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, STATE[f"text_encoder_model.{name}"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_are_cast(tmp_path: Path, dtype: torch.dtype) -> None:
    """Weights come in the type asked for, each rounded once from the file's."""
    save_directory(tmp_path / "m", CONFIG, STATE)
    network = build_empty(lambda: ClvpNetwork(CONFIG))
    open_checkpoint(tmp_path / "m").load_into(network, "", dtype)
    assert all(torch.equal(tensor, STATE[name].to(dtype)) for name, tensor in network.state_dict().items())


def test_module_of_another_shape_is_refused() -> None:
    """Missing, unknown and misshapen names are all told at once."""
    with torch.device("meta"):
        module = torch.nn.Linear(2, 3)
    with pytest.raises(
        CheckpointError, match=r"here: 1 missing: bias; 1 unknown: scale; 1 misshapen: weight \[3\], not"
    ):
        load_module(module, {"weight": torch.zeros(3), "scale": torch.zeros(1)}, where="here")


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool])
def test_integers_where_numbers_are_multiplied_are_refused(kind: torch.dtype) -> None:
    """Weights stored as integers are told by name, not met as an error of the arithmetic."""
    with torch.device("meta"):
        module = torch.nn.Linear(2, 3)
    state = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3, dtype=kind)}
    with pytest.raises(CheckpointError, match=rf"here: 1 not floating point: bias {kind}"):
        load_module(module, state, torch.float32, where="here")


def test_reference_models_own_files_open(tmp_path: Path) -> None:
    """A directory that the published classes saved opens, and its extra configuration keys are kept."""
    for name in ("hf_partial", "hf_biased"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "config.json").symlink_to(GOLDEN / f"{name}.json")
        (directory / "model.safetensors").symlink_to(GOLDEN / f"{name}.safetensors")
        checkpoint = open_checkpoint(directory)
        assert checkpoint.parts == ("conditioning", "decoder", "text", "speech")
        with torch.device("meta"):
            network = ClvpNetwork(checkpoint.config)
        checkpoint.load_into(network, "", torch.float32)
        assert checkpoint.config.extra["transformers_version"] == "4.46.3"


def test_extra_directory_is_opened_and_checked(tmp_path: Path) -> None:
    """A side model's directory is an extra; one without weights or configuration is an error."""
    save_directory(tmp_path / "m", CONFIG, STATE, extras={"codec": ({"num_codes": 30}, {"a": torch.ones(2)})})
    extra = open_checkpoint(tmp_path / "m").extras["codec"]
    assert (extra.format, dict(extra.config)) == ("hf", {"num_codes": 30})
    assert torch.equal(extra.state()["a"], torch.ones(2))
    (tmp_path / "m" / "codec" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"codec/config\.json"):
        open_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "codec" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="codec: no model"):
        open_checkpoint(tmp_path / "m")


def test_casting_holds_no_second_copy(tmp_path: Path) -> None:
    """Loading 64 MB of float32 as bfloat16 grows the process by 32 MB and one group."""
    program = """
import resource, sys
from pathlib import Path
import torch
from torch import nn
from clvp_cli.checkpoints import checkpoint
from clvp_cli.checkpoints.modules import load_module
from clvp_cli.checkpoints.tensors import SafetensorsFile
from clvp_cli.checkpoints.checkpoint import read_grouped
checkpoint.GROUP_BYTES = 2 * 2**20
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
with torch.device("meta"):
    module = nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(64)))
store = SafetensorsFile(Path(sys.argv[1]))
warm = dict(read_grouped(store, ["0.weight"])); warm["0.weight"].to(torch.bfloat16); del warm
before = peak()
load_module(module, read_grouped(store, list(store.infos)), torch.bfloat16)
grown = peak() - before
assert grown < 32 + 8, grown
"""
    from safetensors.torch import save_file

    save_file({f"{i}.weight": torch.zeros(512, 512) for i in range(64)}, tmp_path / "x.safetensors")
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "x.safetensors")], check=True)


def test_empty_modules_cost_no_initialisation() -> None:
    """Building a module to be filled fills nothing, and brings none of what filling on the meta device would import."""
    program = (
        "import sys; from clvp_cli.checkpoints.modules import build_empty; from clvp_cli.model.clvp import ClvpNetwork;"
        "from clvp_cli.checkpoints.random import tiny_config;"
        "network = build_empty(lambda: ClvpNetwork(tiny_config()));"
        "assert all(p.is_meta for p in network.parameters()); assert 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
