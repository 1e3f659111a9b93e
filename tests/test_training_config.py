"""Training YAML: what it may say, and what is refused with a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from clvp_cli.errors import ConfigError
from clvp_cli.training.config import TrainConfig, load_train_config

MINI = Path(__file__).resolve().parents[1] / "configs" / "mini"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_stand_where_nothing_is_said(tmp_path: Path) -> None:
    """A manifest is enough, and its path is relative to the file."""
    config = load_train_config(write(tmp_path / "t.yaml", "data: {manifest: clips.jsonl}"))
    assert config.data.manifest == str(tmp_path / "clips.jsonl")
    assert config.optim == TrainConfig().optim


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("data: {manifest: a}\nloop: {step: 3}", "unknown key 'loop.step'", "loop.steps"),
        ("data: {manifest: a}\nlop: {steps: 3}", "unknown key 'lop'", "loop"),
        ("data: {manifest: a}\nloop: {steps: many}", "loop.steps is 'many'", "whole number"),
        ("data: {manifest: a}\nloop: {precision: float8}", "loop.precision", "bfloat16"),
        ("data: {manifest: a}\nloop: 3", "a mapping is expected", None),
        ("data: {manifest: a}\ncodec: {augment: {noice: 1}}", "codec.augment.noice", "codec.augment.noise"),
        ("loop: {steps: 3}", "data.manifest is missing", "JSONL"),
        ("data: {manifest: a}\nloop: {steps: 0}", "loop.steps is 0", "from 1"),
        ("data: {manifest: a}\nloop: {evaluate_every: 0}", "loop.evaluate_every is 0", "from 1"),
        ("data: {manifest: a}\nloop: {batch_frames: -5}", "loop.batch_frames is -5", "from 1"),
        ("data: {manifest: a}\nloop: {seed: 99999999999999999999}", "loop.seed is too large", None),
        (f"data: {{manifest: a}}\nloop: {{steps: {'9' * 5000}}}", "not YAML", None),
        ("data: {manifest: a}\nloop: {steps: [3]}", "loop.steps is a list", "one text or number"),
        ("data: {manifest: a}\nloop: {steps: 2020-01-31}", "loop.steps is a date", "one text or number"),
        ("data: {manifest: a}\nloop: {steps: 2020-13-45}", "not YAML", None),
        ("data: {manifest: a}\noptim: {learning_rate: .nan}", "optim.learning_rate is nan", "a number"),
        ("data: {manifest: a}\noptim: {learning_rate: -1}", "optim.learning_rate is -1", "from 0"),
        ("data: {manifest: a}\noptim: {beta1: 1}", "optim.beta1 is 1", "0.999999"),
        ("data: {manifest: a}\npair: {dropout: 2}", "pair.dropout is 2", "from 0 to 1"),
        ("data: {manifest: a, held_out: .inf}", "data.held_out is inf", "from 0 to 1"),
        ("data: {manifest: a, shares: {b: x}}", "data.shares.b is 'x'", "a number"),
        ("data: {manifest: a, shares: {b: -1}}", "data.shares.b is -1", "from 0"),
        ("data: &d {manifest: a, shares: *d}", "anchors, aliases and tags are not read", "see configs/mini/"),
        ("data: {manifest: [a]}", "data.manifest is a list", "one text or number"),
        ("data: {manifest: a}\n1.5: 2", "unknown key '1.5'", "known here are"),
        ("[" * 500, "not YAML", None),
        ("data: [", "not YAML", None),
        ("3", "a mapping is expected", None),
    ],
)
def test_a_fault_is_named_with_the_nearest_key(tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    """Unknown keys, values of the wrong type, and files that are no YAML."""
    with pytest.raises(ConfigError, match=r"t\.yaml") as caught:
        load_train_config(write(tmp_path / "t.yaml", text))
    assert message in str(caught.value)
    assert hint is None or hint in f"{caught.value.hint}"


@pytest.mark.parametrize("name", ["phones", "slots", "codec", "alignment", "clvp", "decoder"])
def test_the_recipe_of_mini_can_be_read(name: str) -> None:
    """Every shipped training file passes the strict reader."""
    assert load_train_config(MINI / f"{name}.yaml").data.manifest.endswith("manifest.jsonl")
