"""Everything runs on a device that is not the CPU: what a GPU refuses is refused here, and the numbers are the same."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from far_device import far_device
from training_runs import SIZES, read_log, write_config, write_corpus

import clvp_cli
from clvp_cli import Clvp, core
from clvp_cli.settings import load_settings
from clvp_cli.training import loop
from clvp_cli.training.train import train
from clvp_cli.training.workshop import Workshop

VOICE = Path(clvp_cli.__file__).parent / "assets" / "voice.flac"
TEXT = "Hello there, my friend."


class InThisThread(contextlib.nullcontext[Any]):
    """A pool that works where it stands: what stands for the device does so in one thread."""

    map = staticmethod(map)

    def __init__(self, workers: int) -> None:
        super().__init__(self)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are packed in this thread, and nothing is autocast."""
    monkeypatch.setattr("clvp_cli.model.packed.ThreadPoolExecutor", InThisThread)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(loop, "autocast", lambda *_: contextlib.nullcontext())


def everything(flags: dict[str, Any]) -> dict[str, Any]:
    """What the pipeline makes with mini, part by part."""
    clvp = Clvp.load("mini", load_settings(flags={"sampling.max_codes": 9, "dtype": "float32", **flags}).settings)
    voice = clvp.voice([VOICE])
    made = sorted((c for _, c in clvp.candidates([TEXT, "Nothing."], voice)), key=lambda c: (c.index, c.length))
    return {
        "voice": voice,
        "codes": np.concatenate([c.codes for c in made]),
        "signals": np.array([list(one.signals.values()) for one in clvp.score(TEXT, made)]),
        "encoded": clvp.encode(VOICE).codes,
        "spoken": clvp.speak(made[0], VOICE)[0],
        "latents": clvp.latents(TEXT, voice, made[0]),
    }


@pytest.mark.parametrize(
    "flags",
    [{"sampling.n": 3, "batch_size": 2}, {"sampling.n": 2, "sampling.beams": 2, "scoring.pad": "batch"}],
)
def test_the_pipeline_runs_there(flags: dict[str, Any], gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Voices, candidates in batches and by beams, scores, latents and the codec, from loading to NumPy."""
    here = everything(flags)
    with far_device() as device:
        monkeypatch.setattr(core, "pick_device", lambda _: device)
        there = everything(flags)
    for name, values in here.items():
        np.testing.assert_allclose(there[name], values, atol=1e-4, err_msg=name)


def test_every_training_task_runs_there(gpu: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Phones, codec, alignment, pair and decoder: the losses are those of the CPU."""
    sounds, codes = write_corpus(tmp_path / "sounds", audio=True), write_corpus(tmp_path / "codes")
    usual = Workshop.__init__

    def elsewhere(self: Workshop, *args: Any) -> None:
        usual(self, *args)
        self.device = torch.device("meta")

    def run(task: Any, name: str, manifest: Path, model: Path | None, changes: dict[str, Any]) -> tuple[Path, Any]:
        config = write_config(tmp_path / f"{task}.yaml", manifest, loop={"steps": 2, "evaluate_every": 2}, **changes)
        done = train(task, config, tmp_path / name, model=model)
        return Path(done["model"]), [row.get("loss", row.get("held_out_loss")) for row in read_log(tmp_path / name)]

    phones = run("phones", "recogniser", sounds, None, {})[0]
    laid = {"data": {"phones": str(phones)}}
    codec_changes = {**laid, "codec": {"phones": 1.0, "listen": 0.5, "continuous_steps": 2}}
    codec = run("codec", "codec", sounds, None, codec_changes)[0]
    shown = {"phones": 0.5, "guide": 1.0, "guide_first": 0, "guide_layers": 1, "guide_heads": 1}
    undropped = {**SIZES["decoder_config"], "attention_dropout": 0.0}  # fused attention drops other weights
    whole = run("decoder", "whole", sounds, codec, {"model": {"decoder_config": undropped}})[0]
    for task, manifest, model, changes, rtol in (
        ("phones", sounds, None, {}, 1e-3),
        ("codec", sounds, None, codec_changes, 1e-3),
        ("alignment", codes, None, {"pair": {"join": 0.3}}, 1e-3),
        ("clvp", codes, None, {"pair": {"alignment": 0.3, "apart": 0.1}}, 1e-3),
        # what tells the phones begins at random, and loading draws random numbers there
        ("decoder", sounds, whole, {**laid, "decoder": shown, "optim": {"muon": True}}, 2e-2),
    ):
        here = run(task, f"{task}-here", manifest, model, changes)[1]
        with far_device(), monkeypatch.context() as patched:
            patched.setattr(Workshop, "__init__", elsewhere)
            there = run(task, f"{task}-there", manifest, model, changes)[1]
        np.testing.assert_allclose(there, here, rtol=rtol, err_msg=task)
