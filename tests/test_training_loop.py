"""Runs of every task on tiny data: they learn, resume exactly, survive a kill, and end in a model directory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import SIZES, read_log, write_config, write_corpus

from clvp_cli.checkpoints.load import open_checkpoint
from clvp_cli.errors import CheckpointError, ConfigError, InputError, OutputError, UsageError
from clvp_cli.training.clvp import PairTask
from clvp_cli.training.train import train

PARTS = {"alignment": ("speech",), "clvp": ("text", "speech"), "decoder": ("conditioning", "decoder")}


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("codes"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("sounds"), audio=True)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory, sounds: Path) -> Path:
    directory = tmp_path_factory.mktemp("codec")
    config = write_config(directory / "codec.yaml", sounds, loop={"batch_frames": 600})
    return Path(train("codec", config, directory / "run")["model"])


def mean_loss(rows: list[dict[str, Any]]) -> float:
    return sum(row["loss"] for row in rows) / len(rows)


@pytest.mark.parametrize("task", ["alignment", "clvp"])
def test_training_on_codes_lowers_the_loss(task: Any, codes: Path, tmp_path: Path) -> None:
    """A manifest of codes alone is enough, and the result is a model directory with the parts that were trained."""
    config = write_config(tmp_path / "c.yaml", codes, loop={"steps": 40, "evaluate_every": 20})
    done = train(task, config, tmp_path / "run")
    rows = [row for row in read_log(tmp_path / "run") if "loss" in row]
    assert mean_loss(rows[-8:]) < 0.9 * mean_loss(rows[:8])
    checkpoint = open_checkpoint(Path(done["model"]))
    assert checkpoint.parts == PARTS[task]
    assert ("alignment" in checkpoint.extras) == (task == "alignment")


def test_the_alignment_learns_to_tell_damaged_copies(codes: Path, tmp_path: Path) -> None:
    """With `pair.apart` the head's likelihoods of clips and of their damaged copies part."""
    pair = {"alignment": 0.3, "apart": 0.1}
    config = write_config(tmp_path / "c.yaml", codes, loop={"steps": 60}, pair=pair)
    train("clvp", config, tmp_path / "run")
    values = [row["apart"] for row in read_log(tmp_path / "run") if "apart" in row]
    assert sum(values[-10:]) < 0.8 * sum(values[:10])


def test_the_codec_learns_and_is_saved_alone(codec: Path, sounds: Path, tmp_path: Path) -> None:
    """A codec from nothing ends in a directory that later runs take codes from."""
    rows = [row for row in read_log(codec.parent) if "loss" in row]
    assert mean_loss(rows[-3:]) < mean_loss(rows[:3])
    assert (codec / "codec" / "model.safetensors").is_file()
    again = train("codec", write_config(tmp_path / "c.yaml", sounds), tmp_path / "run", model=codec)
    assert Path(again["model"], "codec", "config.json").is_file()


def test_a_codec_of_tortoises_kind_can_be_fine_tuned(sounds: Path, tmp_path: Path) -> None:
    """Without levels, voices or unit latents, as dvae.pth is: made, then taken up as a model to start from."""
    plain = {**SIZES["codec"], "unit_latents": False, "relative": False, "voice_dim": 0}
    config = write_config(tmp_path / "c.yaml", sounds, loop={"steps": 30}, model={"codec": plain})
    model = Path(train("codec", config, tmp_path / "made")["model"])
    rows = [row for row in read_log(tmp_path / "made") if "loss" in row]
    assert mean_loss(rows[-5:]) < mean_loss(rows[:5])
    assert train("codec", write_config(tmp_path / "d.yaml", sounds), tmp_path / "tuned", model=model)["steps"] == 12


def test_the_decoder_learns_from_audio_through_the_codec(codec: Path, sounds: Path, tmp_path: Path) -> None:
    """Clips become codes once, voices are other clips of the speaker, and the codec stays beside the result."""
    config = write_config(tmp_path / "c.yaml", sounds, loop={"steps": 30, "evaluate_every": 15})
    done = train("decoder", config, tmp_path / "run", model=codec)
    rows = [row for row in read_log(tmp_path / "run") if "loss" in row]
    assert mean_loss(rows[-5:]) < 0.9 * mean_loss(rows[:5])
    checkpoint = open_checkpoint(Path(done["model"]))
    assert checkpoint.parts == PARTS["decoder"]
    assert "codec" in checkpoint.extras


def test_a_chain_of_runs_ends_in_a_whole_model(codec: Path, sounds: Path, tmp_path: Path) -> None:
    """codec → alignment → clvp → decoder: each starts from the last one's model and leaves the other parts alone."""
    model, states = codec, {}
    for task in ("alignment", "clvp", "decoder"):
        config = write_config(tmp_path / f"{task}.yaml", sounds, loop={"steps": 2, "evaluate_every": 2})
        model = Path(train(task, config, tmp_path / task, model=model)["model"])
        states[task] = open_checkpoint(model).state()
    checkpoint = open_checkpoint(model)
    assert checkpoint.parts == ("conditioning", "decoder", "text", "speech")
    assert set(checkpoint.extras) == {"codec", "alignment"}
    kept = [name for name in states["clvp"] if name.startswith(("text_", "speech_encoder"))]
    assert kept
    assert all(torch.equal(states["clvp"][name], states["decoder"][name]) for name in kept)


@pytest.mark.parametrize("task", ["alignment", "clvp", "codec", "decoder"])
def test_a_resumed_run_repeats_the_curve_exactly(
    task: Any, codes: Path, sounds: Path, codec: Path, tmp_path: Path
) -> None:
    """Cut after 6 of 12 steps and resumed: the log is that of an uninterrupted run, figure by figure."""
    heard = task in ("codec", "decoder")
    model = codec if task == "decoder" else None
    manifest = sounds if heard else codes
    config = write_config(tmp_path / "c.yaml", manifest)
    train(task, config, tmp_path / "whole", model=model)
    with pytest.raises(InterruptedError):
        train(task, config, tmp_path / "cut", model=model, report=stop_at(8))
    train(task, config, tmp_path / "cut", resume=True, model=model)
    assert read_log(tmp_path / "cut") == read_log(tmp_path / "whole")


@pytest.mark.parametrize("within", ["a step", "the last evaluation"])
def test_ctrl_c_loses_neither_the_curve_nor_the_model(
    within: str, codes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes, --resume gives the log of an uninterrupted run and leaves its model."""
    config = write_config(tmp_path / "c.yaml", codes, loop={"evaluate_every": 12})
    train("clvp", config, tmp_path / "whole")
    loss, held_out = PairTask.loss, PairTask.held_out

    def interrupted(self: PairTask, step: int) -> Any:
        if step == 7 and within == "a step":
            signal.raise_signal(signal.SIGINT)
        return loss(self, step)

    def evaluated(self: PairTask, batches: int) -> Any:
        figures = held_out(self, batches)
        if within == "the last evaluation":
            raise KeyboardInterrupt
        return figures

    with monkeypatch.context() as patch:
        patch.setattr(PairTask, "loss", interrupted)
        patch.setattr(PairTask, "held_out", evaluated)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            train("clvp", config, tmp_path / "cut")
    state = torch.load(tmp_path / "cut" / "state.pt", weights_only=True)
    assert state["progress"]["step"] == (8 if within == "a step" else 12) and not (tmp_path / "cut" / "model").exists()
    train("clvp", config, tmp_path / "cut", resume=True)
    assert read_log(tmp_path / "cut") == read_log(tmp_path / "whole")
    assert open_checkpoint(tmp_path / "cut" / "model").parts == PARTS["clvp"]


def stop_at(step: int) -> Any:
    """A report that breaks the run off."""

    def report(row: Any) -> None:
        if row["step"] == step and "loss" in row:
            raise InterruptedError

    return report


def test_a_killed_run_leaves_a_state_that_resumes(codes: Path, tmp_path: Path) -> None:
    """SIGKILL at any moment: what is on disk is whole, and the run goes on to its end."""
    config = write_config(tmp_path / "c.yaml", codes, loop={"steps": 100000, "save_every": 2, "evaluate_every": 5})
    script = "import sys; from pathlib import Path; from clvp_cli.training.train import train; "
    script += "train('clvp', Path(sys.argv[1]), Path(sys.argv[2]))"
    run = subprocess.Popen([sys.executable, "-c", script, str(config), str(tmp_path / "run")], env={**os.environ})
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "model").is_dir() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    steps = state["progress"]["step"]
    assert steps >= 2
    open_checkpoint(tmp_path / "run" / "model")
    config = write_config(tmp_path / "c.yaml", codes, loop={"steps": steps + 2, "save_every": 2})
    assert train("clvp", config, tmp_path / "run", resume=True)["steps"] == steps + 2


def test_early_stopping_keeps_the_best(codes: Path, tmp_path: Path) -> None:
    """Without a better held-out loss for `patience` evaluations a run ends, its best model kept."""
    loop = {"steps": 60, "evaluate_every": 2, "patience": 2}
    config = write_config(tmp_path / "c.yaml", codes, loop=loop, optim={"learning_rate": 0.3, "warmup": 0})
    done = train("clvp", config, tmp_path / "run")
    held_out = [row["held_out_loss"] for row in read_log(tmp_path / "run") if "held_out_loss" in row]
    assert done["steps"] < 60
    assert done["best"] == pytest.approx(min(held_out), abs=1e-4)


def test_an_earlier_run_is_not_overwritten(codes: Path, tmp_path: Path) -> None:
    """Without --resume a directory with a run in it is refused; with a damaged state it is named."""
    config = write_config(tmp_path / "c.yaml", codes, loop={"steps": 1})
    train("clvp", config, tmp_path / "run")
    with pytest.raises(OutputError, match="a run is there already"):
        train("clvp", config, tmp_path / "run")
    state = tmp_path / "run" / "state.pt"
    state.write_bytes(state.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        train("clvp", config, tmp_path / "run", resume=True)


@pytest.mark.parametrize("name", ["log.jsonl", "loss.png", "model"])
def test_what_no_run_wrote_is_not_replaced(name: str, codes: Path, tmp_path: Path) -> None:
    """A log, a picture or a model in the directory, and no state: refused before anything is made, and left alone."""
    mine = tmp_path / "run" / name / "config.json" if name == "model" else tmp_path / "run" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(OutputError, match=f"holds {name}") as caught:
        train("clvp", write_config(tmp_path / "c.yaml", codes), tmp_path / "run", resume=name == "model")
    assert f"move {name} away" in (caught.value.hint or "")
    assert mine.read_text() == "mine" and len(list((tmp_path / "run").iterdir())) == 1


def test_a_run_that_failed_at_once_may_begin_anew(codes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in the first step leaves nothing to go on with; one before the first save leaves a state to resume."""
    config = write_config(tmp_path / "c.yaml", codes, loop={"save_every": 100})
    train("clvp", config, tmp_path / "whole")
    loss, failing = PairTask.loss, [0, 4]

    def fails(self: PairTask, step: int) -> Any:
        if failing and step == failing[0]:
            raise InputError(f"step {failing.pop(0)}")
        return loss(self, step)

    monkeypatch.setattr(PairTask, "loss", fails)
    for message in ("step 0", "step 4"):
        with pytest.raises(InputError, match=message):
            train("clvp", config, tmp_path / "run")
    train("clvp", config, tmp_path / "run", resume=True)
    assert read_log(tmp_path / "run") == read_log(tmp_path / "whole")


@pytest.mark.parametrize("within", ["gradient", "held-out loss"])
def test_weights_that_went_astray_are_not_saved(
    within: str, codes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient or a held-out loss that is no number ends the run; the last good state resumes it."""
    config = write_config(tmp_path / "c.yaml", codes, loop={"save_every": 3})
    train("clvp", config, tmp_path / "whole")
    loss, held_out = PairTask.loss, PairTask.held_out

    def astray(self: PairTask, step: int) -> Any:
        value, figures = loss(self, step)
        return (value + (self.scale * 0).sqrt() if step == 8 and within == "gradient" else value), figures

    def unheard(self: PairTask, batches: int) -> Any:
        return {**held_out(self, batches), **({"loss": float("nan")} if within == "held-out loss" else {})}

    with monkeypatch.context() as patch:
        patch.setattr(PairTask, "loss", astray)
        patch.setattr(PairTask, "held_out", unheard)
        with pytest.raises(InputError, match=f"{within}.* is nan"):
            train("clvp", config, tmp_path / "run")
    assert "NaN" not in (tmp_path / "run" / "log.jsonl").read_text()
    train("clvp", config, tmp_path / "run", resume=True)
    assert read_log(tmp_path / "run") == read_log(tmp_path / "whole")


def test_a_lost_model_is_made_again(codes: Path, tmp_path: Path) -> None:
    """Where model/ is gone, --resume evaluates and writes it, at the end of a finished run too."""
    config = write_config(tmp_path / "c.yaml", codes)
    train("clvp", config, tmp_path / "run")
    before = read_log(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    done = train("clvp", config, tmp_path / "run", resume=True)
    assert open_checkpoint(Path(done["model"])).parts == PARTS["clvp"]
    assert read_log(tmp_path / "run") == before


def test_a_share_of_no_source_is_noticed(codes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A slip in a source's name would weigh nothing."""
    config = write_config(tmp_path / "c.yaml", codes, loop={"steps": 1}, data={"shares": {"": 2.0, "no-such": 3.0}})
    train("clvp", config, tmp_path / "run")
    assert "no clip is of source no-such" in caplog.text


def test_without_held_out_clips_there_is_no_best_loss(codes: Path, tmp_path: Path) -> None:
    """The latest model is kept, and no figure is made up for it."""
    (tmp_path / "m.jsonl").write_text(codes.read_text().replace("heldout", "train"))
    done = train("clvp", write_config(tmp_path / "c.yaml", tmp_path / "m.jsonl"), tmp_path / "run")
    assert done["best"] is None and Path(done["model"]).is_dir()


def test_two_runs_do_not_share_a_directory(codes: Path, tmp_path: Path) -> None:
    """The second one is told so, with --resume too."""
    config = write_config(tmp_path / "c.yaml", codes, loop={"steps": 2})

    def second(row: Any) -> None:
        with pytest.raises(OutputError, match="another run is writing"):
            train("clvp", config, tmp_path / "run", resume=True)

    assert train("clvp", config, tmp_path / "run", report=second)["steps"] == 2


@pytest.mark.parametrize(
    "content", [b"hello", b"", b"PK\x03\x04", b"\x80\x02cos\nsystem\n."], ids=["text", "empty", "cut", "unsafe"]
)
def test_what_is_no_state_is_not_resumed(content: bytes, codes: Path, tmp_path: Path) -> None:
    """Whatever lies there as state.pt, an error of one line names it and nothing in it is run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.pt: cannot be resumed"):
        train("clvp", write_config(tmp_path / "c.yaml", codes), tmp_path / "run", resume=True)


def test_a_log_that_is_none_is_named(codes: Path, tmp_path: Path) -> None:
    """A run is not resumed onto lines that it cannot have written; they stay."""
    config = write_config(tmp_path / "c.yaml", codes, loop={"steps": 1})
    train("clvp", config, tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").write_bytes(b'{"a": 3}\n')
    with pytest.raises(InputError, match=r"log\.jsonl: no log of a run"):
        train("clvp", config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == b'{"a": 3}\n'


def test_a_full_disk_leaves_the_state_before(codes: Path, tmp_path: Path) -> None:
    """torch.save tells of it in its own way; the error names the file, and the earlier state resumes the run."""
    resource = pytest.importorskip("resource")
    config = write_config(tmp_path / "c.yaml", codes, loop={"steps": 2})
    train("clvp", config, tmp_path / "run")
    before = (tmp_path / "run" / "state.pt").read_bytes()
    config = write_config(tmp_path / "c.yaml", codes, loop={"steps": 4})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
        with pytest.raises(OutputError, match=r"state\.pt: the limit on file sizes is reached"):
            train("clvp", config, tmp_path / "run", resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert train("clvp", config, tmp_path / "run", resume=True)["steps"] == 4


def test_clips_without_sound_are_left_out_and_counted(
    sounds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing, empty and no sound at all: the first are named, then how many; where none is left, that is said."""
    monkeypatch.setattr("clvp_cli.training.features.NAMED", 3)
    lines = [json.loads(line) for line in sounds.read_text().splitlines()]
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "folder").mkdir()
    for number, name in enumerate(["gone.wav", "empty.wav", "text.wav", "folder"]):
        lines[number]["audio"] = name
    for line in lines[4:]:
        line["audio"] = str(sounds.parent / line["audio"])
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = write_config(tmp_path / "c.yaml", manifest, loop={"steps": 1, "batch_frames": 400})
    assert train("phones", config, tmp_path / "run")["steps"] == 1
    assert "left out: 4 of 24 clips" in caplog.text
    assert [record.levelname for record in caplog.records if "left out: /" in record.message].count("WARNING") == 3
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines[:4]))
    with pytest.raises(InputError, match="no clip whose audio can be read"):
        train("phones", config, tmp_path / "none")


@pytest.mark.parametrize(
    ("task", "section", "sizes", "message"),
    [
        ("clvp", "speech_config", {"hidden_size": 0}, "no speech has these sizes"),
        ("clvp", "speech_config", {"vocab_size": 8}, "the model knows codes to 7"),
        ("clvp", "text_config", {"vocab_size": 8}, "ids to 7"),
        ("alignment", "alignment", {"vocab_size": 8}, "ids to 7"),
        ("decoder", "decoder_config", {"vocab_size": 64}, "beyond vocab_size"),
        ("decoder", "decoder_config", {"max_text_tokens": 8}, "the decoder takes 63 and 5"),
        ("decoder", "decoder_config", {"max_position_embeddings": 8}, "the decoder takes 7 and 61"),
    ],
)
def test_sizes_that_the_clips_do_not_fit_are_named(
    task: Any, section: str, sizes: dict[str, int], message: str, codes: Path, sounds: Path, tmp_path: Path
) -> None:
    """At once, not when the clip is drawn, with the clip."""
    lines = [json.loads(line) for line in codes.read_text().splitlines()]
    for number, line in enumerate(lines):
        line |= {"audio": str(sounds.parent / f"{number}.wav")} if task == "decoder" else {}
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = write_config(tmp_path / "c.yaml", tmp_path / "m.jsonl", model={section: {**SIZES[section], **sizes}})
    with pytest.raises((ConfigError, InputError), match=message):
        train(task, config, tmp_path / "run")
    assert not (tmp_path / "run" / "state.pt").exists()


def test_an_unknown_task_is_named(tmp_path: Path) -> None:
    """The tasks there are, in the hint."""
    with pytest.raises(UsageError) as caught:
        train("vocoder", tmp_path / "c.yaml", tmp_path)  # type: ignore[arg-type]
    assert "alignment" in (caught.value.hint or "")


def test_the_loss_plot_is_a_picture(codes: Path, tmp_path: Path) -> None:
    """Where matplotlib is installed, a run ends with loss.png."""
    pytest.importorskip("matplotlib")
    config = write_config(tmp_path / "c.yaml", codes, loop={"steps": 4, "evaluate_every": 2, "plot": True})
    train("clvp", config, tmp_path / "run")
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])["step"] == 1


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_decoders_voice_and_prefix_are_the_models_own(blocks: int) -> None:
    """What training computes more cheaply, or with pads in it, is what the network computes for a row alone."""
    from clvp_cli.config import ClvpConfig
    from clvp_cli.model.conditioning import ConditioningEncoder
    from clvp_cli.training.decoder import voice_vectors

    sizes = {**SIZES, "decoder_config": {**SIZES["decoder_config"], "num_mel_attn_blocks": blocks}}
    config = ClvpConfig.from_dict(
        {name: size for name, size in sizes.items() if name not in ("codec", "alignment", "phones")}
    )
    conditioning = ConditioningEncoder(config).eval()
    mels = torch.randn(3, 80, 20)
    assert torch.allclose(voice_vectors(conditioning, mels), conditioning.voice(mels), atol=1e-5)
