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
