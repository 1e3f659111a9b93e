"""What a training file may say under `model`: known keys, and sizes that networks have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import SIZES

from clvp_cli.errors import ConfigError, InputError
from clvp_cli.training.config import load_train_config
from clvp_cli.training.phones import PhoneConfig
from clvp_cli.training.sizes import check_sizes, sized

MINI = Path(__file__).resolve().parents[1] / "configs" / "mini"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"speech_confg": {}}, "unknown key 'model.speech_confg'"),
        ({"extra": {}}, "unknown key 'model.extra'"),
        ({"codec": {"num_code": 8}}, "unknown key 'model.codec.num_code'"),
        ({"speech_config": {"hidden": 8}}, "unknown key 'model.speech_config.hidden'"),
        ({"alignment": [1]}, "model.alignment: a mapping is expected, found list"),
        ({"text_config": None}, "model.text_config: a mapping is expected, found NoneType"),
        ({"codec": {"relative": "x"}}, "model.codec.relative is no switch"),
        ({"codec": {"num_codes": 10**30}}, "model.codec.num_codes is no size"),
        ({"projection_dim": float("nan")}, "model.projection_dim is no size"),
    ],
)
def test_odd_sizes_are_named(changed: dict[str, Any], message: str) -> None:
    """A slip of the pen makes no network of published size, and no traceback."""
    with pytest.raises(ConfigError) as caught:
        check_sizes({**SIZES, **changed})
    assert message in caught.value.message


@pytest.mark.parametrize("name", ["phones", "slots", "codec", "alignment", "clvp", "decoder"])
def test_the_sizes_of_mini_are_known(name: str) -> None:
    """The recipe passes."""
    check_sizes(load_train_config(MINI / f"{name}.yaml").model)


def test_sizes_that_make_no_network_are_named() -> None:
    """What making one raises becomes one line; the program's own errors pass as they are."""
    with pytest.raises(ConfigError, match="no codec has these sizes: a b"), sized("codec"):
        raise RuntimeError("a\n b")
    with pytest.raises(InputError, match="mine"), sized("codec"):
        raise InputError("mine")


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None, "8", [8]])
def test_a_recogniser_has_whole_sizes(size: Any) -> None:
    """Above 0."""
    with pytest.raises(ConfigError, match="whole numbers"):
        PhoneConfig.from_dict({"hidden_size": size})
