"""`clvp train`: what it prints, what it leaves, and its complaints."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Cli
from training_runs import write_config, write_corpus


def test_a_run_ends_in_one_record_and_a_model(cli: Cli, tmp_path: Path) -> None:
    """stdout is the record alone; the directory holds the state, the log and a model that other commands read."""
    manifest = write_corpus(tmp_path / "corpus")
    config = write_config(tmp_path / "c.yaml", manifest, loop={"steps": 2})
    done = cli.fine("train", "clvp", "-c", config, "-o", "run")
    record = done.records[0]
    assert len(done.records) == 1
    assert (record["task"], record["steps"], record["model"]) == ("clvp", 2, "run/model")
    assert not done.err
    assert {entry.name for entry in (tmp_path / "run").iterdir()} == {"state.pt", "log.jsonl", "model"}
    assert cli.fine("model", "info", "run/model").records[0]["can"] == ["score candidates"]


def test_a_model_is_fine_tuned_and_the_run_taken_up(cli: Cli, tmp_path: Path) -> None:
    """-m starts from a model directory, --resume goes on in the same place."""
    manifest = write_corpus(tmp_path / "corpus")
    config = write_config(tmp_path / "c.yaml", manifest, loop={"steps": 2})
    cli.fine("train", "clvp", "-c", config, "-o", "first")
    config = write_config(tmp_path / "c.yaml", manifest, loop={"steps": 4})
    cli.fine("train", "alignment", "-c", config, "-m", "first/model", "-o", "second")
    config = write_config(tmp_path / "c.yaml", manifest, loop={"steps": 6})
    done = cli.fine("train", "alignment", "-c", config, "-m", "first/model", "-o", "second", "--resume")
    assert done.records[0]["steps"] == 6
    assert (tmp_path / "second" / "model" / "alignment" / "model.safetensors").is_file()


def test_a_model_that_hears_otherwise_is_refused(cli: Cli, tmp_path: Path) -> None:
    """Training makes the published log-mels: a model with another preprocessor is not fine-tuned on them silently."""
    config = write_config(tmp_path / "c.yaml", write_corpus(tmp_path / "corpus"), loop={"steps": 2})
    cli.fine("train", "clvp", "-c", config, "-o", "first")
    (tmp_path / "first" / "model" / "preprocessor_config.json").write_text('{"mel_norms": null, "hop_length": 512}')
    refused = cli("train", "alignment", "-c", config, "-m", "first/model", "-o", "second")
    assert refused.code == 2 and "other log-mels" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["clvp"], 2, "no configuration"),
        (["clvp", "-c", "missing.yaml"], 2, "missing.yaml"),
        (["vocoder", "-c", "c.yaml"], 2, "vocoder"),
        (["clvp", "-c", "bad.yaml"], 2, "loop.steps"),
        (["clvp", "-c", "c.yaml", "-m", "nowhere"], 1, "nowhere"),
        (["codec", "-c", "c.yaml"], 1, "no audio"),
        (["clvp", "-c", "lost.yaml"], 1, "gone.jsonl"),
    ],
)
def test_faults_are_short_errors(cli: Cli, tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    """One or two lines on stderr with the right exit code, and no traceback."""
    manifest = write_corpus(tmp_path / "corpus")
    write_config(tmp_path / "c.yaml", manifest)
    write_config(tmp_path / "bad.yaml", manifest, loop={"step": 2})
    write_config(tmp_path / "lost.yaml", tmp_path / "gone.jsonl")
    failed = cli("train", *arguments)
    assert failed.code == code
    assert words in failed.err
    assert len(failed.complaint) <= 2
    assert "Traceback" not in failed.err
