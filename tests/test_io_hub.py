"""The hub: the local cache is read without the network, and fetching survives what a network does."""

from __future__ import annotations

import errno
import importlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hub_server import COMMIT, Hub, serve

from clvp_cli.checkpoints import published
from clvp_cli.checkpoints.checkpoint import EXTRAS
from clvp_cli.errors import CheckpointError, ClvpError, OutputError, UsageError
from clvp_cli.io import hub as hub_module
from clvp_cli.io.hub import fetch_model, files_needed
from clvp_cli.locate import cached_model, hub_cache, model_path, split_id

ID = "someone/clvp-small"
WEIGHTS = bytes(range(256)) * 2048  # 512 KiB


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache of this test's own."""
    for name in ("HF_HOME", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection fails the test."""

    def refuse(*args: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """huggingface_hub, kept from the real hub and from waiting, and closed afterwards."""
    library = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    from huggingface_hub import constants, file_download

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16 * 1024)  # what has come is kept in steps of this
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    yield library
    if hasattr(library, "close_session"):
        library.close_session()


@pytest.fixture
def hub(tmp_path: Path, cache: Path, library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one published model, which carries more than a model needs."""
    repository = tmp_path / "repository"
    for name, content in {
        "config.json": b'{"model_type": "clvp"}',
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": b"the same once more",
        "vocab.json": b"{}",
        "README.md": b"# A model",
        "codec/config.json": b"{}",
        "codec/model.safetensors": b"codec",
        "samples/speech.wav": b"RIFF",
    }.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_bytes(content)
    with serve({ID: repository}) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        yield served


def snapshot_of(cache: Path, files: dict[str, str], ref: str | None = "main", hub_id: str = ID) -> Path:
    """Lay files into the cache as the library does."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    for name, content in files.items():
        path = repository / "snapshots" / COMMIT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    if ref:
        (repository / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / ref).write_text(COMMIT, encoding="ascii")
    return repository / "snapshots" / COMMIT


def test_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache is HF_HUB_CACHE, else HF_HOME/hub, else under the user's cache directory."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub_cache() == Path.home() / ".cache/huggingface/hub"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hub_cache() == tmp_path / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert hub_cache() == tmp_path / "home" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", "~/somewhere")
    assert hub_cache() == Path.home() / "somewhere"


@pytest.mark.parametrize("name", ["gpt2", "org/name", "org/name@v1.0", "org/name@refs/pr/3", f"org/name@{COMMIT}"])
def test_hub_ids_are_read(name: str) -> None:
    """A hub id is a name, with an organisation and a revision where they are given."""
    parts = split_id(name)
    assert parts is not None
    assert parts[0] == name.split("@")[0]
    assert parts[1] == (name.split("@")[1] if "@" in name else "main")


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "../up", "org/..", "./here", "/root", "a b", "org/name@", "org/name@../x", "a--b/c", "a\0b"]
)
def test_what_is_no_hub_id_is_not_looked_for(name: str, cache: Path) -> None:
    """Paths, and names that would lead out of the cache, are no hub ids."""
    assert split_id(name) is None
    assert cached_model(name) is None
    with pytest.raises(UsageError, match="is not a hub id"):
        fetch_model(name)


def test_a_cached_model_is_found_by_id_revision_and_commit(cache: Path, no_network: None) -> None:
    """A whole model in the cache is found under its id, its revision and its commit, without the network."""
    snapshot = snapshot_of(cache, {"config.json": "{}", "model.safetensors": "x"})
    snapshot_of(cache, {}, ref="refs/pr/3")
    assert cached_model(ID) == cached_model(f"{ID}@main") == cached_model(f"{ID}@refs/pr/3") == snapshot
    assert cached_model(f"{ID}@{COMMIT}") == snapshot
    assert cached_model(f"{ID}@other") is None
    assert cached_model("someone/else") is None
    assert model_path(ID) == snapshot


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        (["config.json"], False),
        (["model.safetensors"], False),
        (["config.json", "pytorch_model.bin"], True),
        (["config.json", "model.safetensors.index.json", "model-1.safetensors"], False),
        (["config.json", "model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"], True),
        (["autoregressive.pth"], False),
        (["autoregressive.pth", "clvp2.pth"], True),
        ([".models/autoregressive.pth", ".models/clvp2.pth"], True),
    ],
)
def test_a_model_that_is_not_whole_is_not_found(cache: Path, files: list[str], whole: bool) -> None:
    """Only a model with all its weights counts as cached, whichever format it has."""
    shards = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    snapshot = snapshot_of(cache, {name: shards if "index" in name else "{}" for name in files})
    found = cached_model(ID)
    assert (found is not None) is whole
    assert found in (None, snapshot, snapshot / ".models")


def test_a_damaged_index_and_a_dangling_link_are_not_whole(cache: Path) -> None:
    """An index that cannot be read, and a link whose file is gone, leave the model not found."""
    snapshot = snapshot_of(cache, {"config.json": "{}", "model.safetensors.index.json": '{"weight_map": 3}'})
    assert cached_model(ID) is None
    (snapshot / "model.safetensors").symlink_to("../../blobs/gone")
    assert cached_model(ID) is None


def test_the_files_needed_leave_copies_and_the_rest_out() -> None:
    """Safetensors go before .bin; side models and Tortoise's files are taken; samples and other networks are not."""
    names = [
        "README.md", "config.json", "model.safetensors", "pytorch_model.bin", "tokenizer_config.json", "tf_model.h5",
        "codec/config.json", "codec/model.safetensors", "codec/pytorch_model.bin", "other/model.safetensors",
        "model-00001-of-00002.safetensors", "autoregressive.pth", "dvae.pth",
    ]  # fmt: skip
    assert files_needed(names) == (
        ["codec/config.json", "codec/model.safetensors", "config.json", "dvae.pth", "tokenizer_config.json"],
        ["model.safetensors"],
    )
    sharded = ["model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors", "pytorch_model.bin"]
    assert files_needed(sharded)[1] == sorted(sharded[:3])
    assert files_needed(["config.json", "pytorch_model.bin"])[1] == ["pytorch_model.bin"]
    tortoise = [".models/autoregressive.pth", ".models/clvp2.pth", ".models/cvvp.pth", ".models/vocoder.pth"]
    assert files_needed(tortoise) == ([".models/cvvp.pth"], tortoise[:2])
    assert files_needed(["voices/a.wav"]) == ([], [])


def test_the_names_agree_with_those_that_checkpoints_read() -> None:
    """What is fetched is what is read: the same weight files, side directories and side files."""
    assert tuple(kind[0] for kind in hub_module.WEIGHTS) == published.CANDIDATES
    assert set(hub_module.SIDE_DIRECTORIES) == set(EXTRAS)
    assert set(hub_module.TORTOISE_SIDE) == {file for file in EXTRAS.values() if file}


def test_fetching_takes_what_is_needed_and_finds_it_afterwards(hub: Hub, request: pytest.FixtureRequest) -> None:
    """A fetched model has its files whole and nothing else, and is found without the network from then on."""
    path = fetch_model(ID)
    names = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert names == {"config.json", "model.safetensors", "vocab.json", "codec/config.json", "codec/model.safetensors"}
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    request.getfixturevalue("no_network")
    assert cached_model(ID) == path
    assert cached_model(f"{ID}@{COMMIT}") == path
    assert cached_model(f"{ID}@v1") is None


def test_a_second_fetch_carries_no_file_again(hub: Hub) -> None:
    """Fetching what is there asks for no file's content again, under another name of the revision neither."""
    path = fetch_model(ID)
    before = len(hub.asked("model.safetensors"))
    assert fetch_model(ID) == fetch_model(f"{ID}@v1") == fetch_model(ID, "v1") == path
    assert len(hub.asked("model.safetensors")) == before == 1


def test_a_cut_connection_is_taken_up_where_it_broke_off(hub: Hub) -> None:
    """A connection cut in the middle of the weights costs the rest of the file, not the file."""
    hub.cuts["model.safetensors"] = 2
    path = fetch_model(ID)
    half, three_quarters = len(WEIGHTS) // 2, len(WEIGHTS) * 3 // 4
    assert hub.asked("model.safetensors") == [None, f"bytes={half}-", f"bytes={three_quarters}-"]
    assert (path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_connection_that_stays_cut_fails_shortly_and_the_next_run_goes_on(
    hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    """When the network stays away the model is not found, whole files are kept, and the next fetch completes it."""
    (hub.repositories[ID] / "model.safetensors").write_bytes(b"x")  # nothing of it arrives before the cut
    hub.cuts["model.safetensors"] = 10**6
    with pytest.raises(CheckpointError, match="connection failed") as caught:
        fetch_model(ID)
    assert "run it again" in (caught.value.hint or "")
    assert cached_model(ID) is None
    assert capfd.readouterr() == ("", "")
    hub.cuts.clear()
    hub.requests.clear()
    path = fetch_model(ID)
    assert (path / "model.safetensors").read_bytes() == b"x"
    assert hub.asked("config.json") == []


@pytest.mark.parametrize(
    ("refusal", "message", "hint"),
    [
        ((404, "RepoNotFound"), "no model someone/clvp-small on the hub", "check the name"),
        ((401, "RepoNotFound"), "no model someone/clvp-small on the hub", "HF_TOKEN"),
        ((403, "GatedRepo"), "owner has to grant access", "HF_TOKEN"),
        ((403, "Forbidden"), r"access denied \(403\)", "token"),
        ((500, "Oops"), "the hub answered 500", "later"),
    ],
)
def test_refusals_are_told_shortly(hub: Hub, refusal: tuple[int, str], message: str, hint: str) -> None:
    """What the hub refuses becomes one line that says what was wrong, and a hint."""
    hub.refused[ID] = refusal
    with pytest.raises(CheckpointError, match=message) as caught:
        fetch_model(ID)
    assert hint in (caught.value.hint or "")
    assert "\n" not in caught.value.message


def test_an_unknown_revision_is_named(hub: Hub) -> None:
    """A revision that the repository does not have is named in the error."""
    with pytest.raises(CheckpointError, match="no revision v9"):
        fetch_model(f"{ID}@v9")


def test_a_repository_without_a_model_is_refused_before_anything_is_fetched(hub: Hub) -> None:
    """A repository of other things is told as such, and nothing of it is fetched."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        (hub.repositories[ID] / name).unlink()
    with pytest.raises(CheckpointError, match="no model in this repository"):
        fetch_model(ID)
    assert hub.asked("config.json") == []


def test_no_network_is_told(cache: Path, library: ModuleType) -> None:
    """Where nobody answers, the error says that the connection failed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        with pytest.raises(CheckpointError, match="connection failed"):
            fetch_model(ID, endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}")


def test_offline_mode_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch, library: ModuleType) -> None:
    """HF_HUB_OFFLINE is respected, and named as the reason."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(library.HfApi, "model_info", refuse)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        fetch_model(ID)


def test_a_full_disk_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch, library: ModuleType) -> None:
    """A full disk is told as one, with the cache's directory."""

    def fill(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(library, "snapshot_download", fill)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        fetch_model(ID)
    assert str(hub_cache()) in caught.value.message


def test_without_the_library_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where huggingface_hub is not installed, the hint says how to install it."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ClvpError, match="not installed") as caught:
        fetch_model(ID)
    assert caught.value.hint == "pip install 'clvp[hub]'"


def test_nothing_global_stays_changed(hub: Hub, library: ModuleType) -> None:
    """Fetching leaves the library's log level, progress bars and steps as they were."""

    def state() -> tuple[object, ...]:
        level = logging.getLogger("huggingface_hub").level
        constants = importlib.import_module("huggingface_hub.constants")  # no attribute until somebody imports it
        return level, library.utils.are_progress_bars_disabled(), constants.DOWNLOAD_CHUNK_SIZE

    before = state()
    fetch_model(ID)
    assert state() == before


def test_the_program_fetches_through_a_cut_in_silence(hub: Hub, cache: Path) -> None:
    """From a fresh process, a cut is mended without a word on stderr, and the record gives the path."""
    weights = bytes(3 * 2**20)
    (hub.repositories[ID] / "model.safetensors").write_bytes(weights)
    hub.cuts["model.safetensors"] = 1
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "clvp_cli", "model", "fetch", ID],
        cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (Path(json.loads(done.stdout)["path"]) / "model.safetensors").read_bytes() == weights
    assert hub.asked("model.safetensors") == [None, f"bytes={2**20}-"]


def test_names_that_lead_nowhere_are_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` of nobody, a name without end, a path out of the cache: no such model, and nothing outside is read."""
    monkeypatch.setenv("HF_HOME", "~nosuch/hub")
    assert not hub_cache().exists()
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    snapshot = snapshot_of(cache, {"config.json": "{}", "model.safetensors": ""})
    (snapshot.parents[1] / "refs" / "out").write_text("../../../elsewhere")
    for name in ("~nosuch/x", "x" * 5000, f"{ID}@../refs/main", f"{ID}@out", "../x/y", f"{ID}@..", "a\0b"):
        with pytest.raises(CheckpointError) as caught:
            model_path(name)
        assert "\n" not in caught.value.message
    index = snapshot_of(cache, {"config.json": "{}", "model.safetensors.index.json": "[" * 10**5}, hub_id="org/deep")
    assert index.is_dir() and cached_model("org/deep") is None
