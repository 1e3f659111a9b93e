"""`clvp model`: what is told of a model, and what converting, fetching and making leave behind."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_makers import published_state, small_config, write_tortoise
from hub_server import serve

from clvp_cli.__main__ import main
from clvp_cli.checkpoints.load import open_checkpoint
from clvp_cli.checkpoints.random import random_directory
from clvp_cli.commands import render

Clvp = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture
def clvp(capsys: pytest.CaptureFixture[str]) -> Clvp:
    """Run the program in this process → (exit code, records, stderr)."""

    def run(*arguments: object) -> tuple[int, list[dict[str, Any]], str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), [json.loads(line) for line in out.splitlines()], err

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small published directory."""
    random_directory(tmp_path / "small", small_config())
    return tmp_path / "small"


@pytest.fixture
def tortoise(tmp_path: Path) -> Path:
    """A small directory of Tortoise's files."""
    return write_tortoise(tmp_path / "tortoise", small_config(), published_state(small_config()))


def test_info_tells_what_a_model_is(clvp: Clvp, small: Path) -> None:
    """`model info` gives one record: format, parameters by part and in total, types, sizes, files."""
    code, [record], err = clvp("model", "info", small)
    assert (code, err) == (0, "")
    assert record["model"] == record["path"] == str(small)
    assert record["format"] == "hf"
    counts = record["parameters"]
    assert set(counts) == {"conditioning", "decoder", "text", "speech", "logit_scale", "total"}
    assert counts["total"] == sum(count for part, count in counts.items() if part != "total")
    assert record["dtypes"] == {"F32": counts["total"]}
    assert record["sizes"]["decoder"]["layers"] == 2
    assert record["sizes"]["speech"]["vocabulary"] == 30
    assert [file["name"] for file in record["files"]] == ["model.safetensors"]
    assert record["bytes"] == (small / "model.safetensors").stat().st_size


def test_info_takes_the_model_of_the_settings(clvp: Clvp, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument it is the settings' model: that of -m, or of the environment."""
    assert clvp("model", "info", "-m", small)[1][0]["path"] == str(small)
    monkeypatch.setenv("CLVP_MODEL", str(small))
    assert clvp("model", "info")[1][0]["path"] == str(small)


def test_info_at_a_terminal_is_a_table(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person sees rows of properties, not JSON."""
    monkeypatch.setattr(render.Output, "table_wanted", lambda self, out=None: True)
    with pytest.raises(SystemExit):
        main(["model", "info", str(small)])
    shown = capsys.readouterr().out
    assert "{" not in shown
    assert "layers 2" in shown
    assert "model.safetensors" in shown


def test_info_of_safetensors_loads_no_torch(small: Path) -> None:
    """Looking at a safetensors directory loads neither torch nor anything of the network."""
    script = (
        "import sys\nfrom clvp_cli.__main__ import main\n"
        "try:\n    main(['model', 'info', sys.argv[1]])\n"
        "finally:\n    print(*{'torch', 'librosa', 'huggingface_hub', 'httpx', 'requests'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(small)], capture_output=True, text=True, check=True)
    record, loaded = done.stdout.splitlines()
    assert json.loads(record)["format"] == "hf"
    assert loaded == ""


def test_info_of_what_is_no_model_says_what_to_do(clvp: Clvp, tmp_path: Path) -> None:
    """A name that leads nowhere ends with 1 and two lines on stderr."""
    code, records, err = clvp("model", "info", tmp_path / "nowhere")
    assert (code, records) == (1, [])
    assert "no model called" in err
    assert len(err.splitlines()) <= 2


def test_convert_makes_tortoise_a_published_directory(clvp: Clvp, tortoise: Path, tmp_path: Path) -> None:
    """Tortoise's files become a safetensors directory with the very same weights."""
    target = tmp_path / "converted"
    code, [record], err = clvp("model", "convert", tortoise, target)
    assert (code, err) == (0, "")
    assert record["path"] == str(target)
    assert record["format"] == "hf"
    assert {"model.safetensors", "config.json", "vocab.json"} <= {file.name for file in target.iterdir()}
    before, after = open_checkpoint(tortoise).state(), open_checkpoint(target).state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_convert_reads_the_older_published_weights(clvp: Clvp, small: Path, tmp_path: Path) -> None:
    """A directory with pytorch_model.bin becomes one with safetensors."""
    from safetensors.torch import load_file

    weights = load_file(small / "model.safetensors")
    torch.save(weights, small / "pytorch_model.bin")
    (small / "model.safetensors").unlink()
    code, [record], _ = clvp("model", "convert", small, tmp_path / "new")
    assert code == 0
    assert [file["name"] for file in record["files"]] == ["model.safetensors"]
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert all(torch.equal(weights[name], written[name]) for name in weights)


def test_convert_casts_where_it_is_asked_to(clvp: Clvp, small: Path, tmp_path: Path) -> None:
    """--dtype stores the weights as that type, whatever the settings compute in; another name is a wrong usage."""
    _, [record], _ = clvp("model", "convert", small, tmp_path / "half", "--dtype", "bfloat16")
    assert set(record["dtypes"]) == {"BF16"}
    code, records, err = clvp("model", "convert", small, tmp_path / "odd", "--dtype", "int3")
    assert (code, records) == (2, [])
    assert "bfloat16" in err
    assert not (tmp_path / "odd").exists()


def test_the_precision_of_the_settings_does_not_touch_what_is_stored(
    clvp: Clvp, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLVP_DTYPE says what to compute in; a conversion loses nothing by it."""
    monkeypatch.setenv("CLVP_DTYPE", "bfloat16")
    _, [record], _ = clvp("model", "convert", small, tmp_path / "same")
    assert set(record["dtypes"]) == {"F32"}


def test_nothing_is_replaced_without_force(clvp: Clvp, small: Path, tmp_path: Path) -> None:
    """A model that is there stays as it is; --force replaces it; a directory of other things is never replaced."""
    target = tmp_path / "target"
    assert clvp("model", "random", target, "--seed", 1)[0] == 0
    before = (target / "model.safetensors").read_bytes()
    for command in (["convert", small, target], ["random", target, "--seed", 2]):
        code, records, err = clvp("model", *command)
        assert (code, records) == (1, [])
        assert "--force" in err
        assert (target / "model.safetensors").read_bytes() == before
    assert clvp("model", "convert", small, target, "--force")[0] == 0
    assert (target / "model.safetensors").read_bytes() != before
    (target / "diary.docx").write_text("mine")
    assert clvp("model", "convert", small, target, "--force")[0] == 1
    assert (target / "diary.docx").read_text() == "mine"


def test_a_failed_conversion_leaves_nothing(clvp: Clvp, tortoise: Path, tmp_path: Path) -> None:
    """A damaged source is an error that names it, and no directory is left where the target would be."""
    weights = tortoise / "clvp2.pth"
    weights.write_bytes(weights.read_bytes()[:1000])
    code, _, err = clvp("model", "convert", tortoise, tmp_path / "target")
    assert code == 1
    assert "clvp2.pth" in err
    assert {path.name for path in tmp_path.iterdir()} == {"tortoise"}


def test_random_models_follow_from_seed_and_sizes(clvp: Clvp, small: Path, tmp_path: Path) -> None:
    """The same seed gives the same weights, another seed others; the sizes may come from a config.json."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        code, [record], _ = clvp("model", "random", tmp_path / name, "--config", small / "config.json", "--seed", seed)
        assert (code, record["seed"]) == (0, seed)
        assert record["sizes"]["decoder"]["vocabulary"] == 32
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_random_sizes_that_are_not_known_are_a_wrong_usage(clvp: Clvp, tmp_path: Path) -> None:
    """Neither an unknown name nor a file that is not there makes a directory."""
    for sizes in ("huge", tmp_path / "none.json"):
        code, _, err = clvp("model", "random", tmp_path / "made", "--config", sizes)
        assert code == 2
        assert str(sizes) in err
    assert not (tmp_path / "made").exists()


@pytest.fixture
def served(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that has the small model, and an empty cache."""
    library = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    constants = importlib.import_module("huggingface_hub.constants")  # no attribute until somebody imports it
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve({"someone/small": small}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield
    if hasattr(library, "close_session"):
        library.close_session()


@pytest.mark.usefixtures("served")
def test_a_fetched_model_is_there_without_the_network(clvp: Clvp, monkeypatch: pytest.MonkeyPatch) -> None:
    """`model fetch` gives the path; from then on the hub id names the model, with no connection made."""
    code, [record], err = clvp("model", "fetch", "someone/small")
    assert (code, err) == (0, "")

    def refuse(*args: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    code, [told], _ = clvp("model", "info", "someone/small")
    assert code == 0
    assert told["path"] == record["path"]
    assert told["parameters"]["total"] > 0


@pytest.mark.usefixtures("served")
def test_an_unknown_hub_id_ends_shortly(clvp: Clvp) -> None:
    """A repository that the hub does not have is exit code 1 and two lines; and so is a hub id never fetched."""
    for command in ("fetch", "info"):
        code, records, err = clvp("model", command, "someone/else")
        assert (code, records) == (1, [])
        assert "someone/else" in err
        assert len(err.splitlines()) == 2


@pytest.mark.usefixtures("served")
def test_fetch_at_a_terminal_prints_the_bare_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person sees the directory alone, on one line."""
    monkeypatch.setattr(render.Output, "table_wanted", lambda self, out=None: True)
    with pytest.raises(SystemExit):
        main(["model", "fetch", "someone/small"])
    [line] = capsys.readouterr().out.splitlines()
    assert (Path(line) / "model.safetensors").is_file()
