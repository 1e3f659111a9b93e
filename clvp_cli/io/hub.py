"""Fetching models of the hub into the local cache, the one thing here that uses the network.

Owns which files of a repository a model needs, and the sentences for what goes wrong on the way; locate.py finds what
was fetched. huggingface_hub is loaded when it is needed. Knows nothing of what the files hold.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ClvpError, UsageError
from ..locate import CONFIG_NAME, MODEL_DIRECTORIES, TORTOISE_MODEL, WEIGHTS, cached_model, hub_cache, split_id
from .atomic import DISK_ERRNOS, unwritable

log = logging.getLogger("clvp")

COMPANIONS = (
    CONFIG_NAME,
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
TORTOISE_SIDE = ("cvvp.pth", "dvae.pth", "rlg_auto.pth")
SIDE_DIRECTORIES = ("codec", "alignment", "phones", "cvvp", "random_voice")
LIBRARIES_OF_THE_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "ssl", "socket")
ATTEMPTS = 3  # at what a cut connection left over
STEP_BYTES = (
    2**20
)  # what has come before a cut is kept in steps of this; the library's own 10 MB would be lost each time


class ConnectionFailedError(CheckpointError):
    """The network did not carry what was asked for; asking again may help."""


def files_needed(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of a repository's files: (what stands beside the weights, the model's own weights), each sorted.

    Sources and formats of no use here, and a second copy of the weights in an older format, are left out.
    """
    inside: dict[str, list[str]] = {}
    for name in sorted(names):
        directory, _, file = name.rpartition("/")
        inside.setdefault(directory, []).append(file)
    beside: list[str] = []
    weights: list[str] = []
    for directory in (*MODEL_DIRECTORIES, *SIDE_DIRECTORIES):
        files = inside.get(directory, [])
        published = next((_matching(files, kind) for kind in WEIGHTS if kind[0] in files), [])
        main = published or _matching(files, TORTOISE_MODEL)
        (beside if directory in SIDE_DIRECTORIES else weights).extend(_in(directory, main))
        beside.extend(_in(directory, _matching(files, (*COMPANIONS, *TORTOISE_SIDE))))
    return sorted(beside), sorted(weights)


def _matching(files: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return [file for file in files if any(fnmatchcase(file, pattern) for pattern in patterns)]


def _in(directory: str, files: Iterable[str]) -> list[str]:
    return [f"{directory}/{file}" if directory else file for file in files]


def fetch_model(
    hub_id: str, revision: str | None = None, *, endpoint: str | None = None, token: str | bool | None = None
) -> Path:
    """Fetch what a model needs of a hub repository into the local cache; what is there already is not fetched again.

    A cut connection is taken up again where it broke off. The weights come last, so a model that was interrupted on
    its way is not taken for a whole one. Progress goes to stderr, at a terminal only.

    Args:
        hub_id: ORG/NAME, or ORG/NAME@REVISION.
        revision: a branch, tag or commit; the id's own, or "main", where None.
        endpoint: the hub's address; HF_ENDPOINT, or the public hub, where None.
        token: as huggingface_hub takes it; None sends the saved one, or HF_TOKEN.
    Returns:
        The model's directory.
    Raises:
        UsageError: no hub id. ClvpError: huggingface_hub is not installed. OutputError: the cache cannot be written.
        CheckpointError: no such repository or revision, no access, no network, or no model in the repository.
    """
    parts = split_id(f"{hub_id}@{revision}" if revision else hub_id)
    if parts is None:
        raise UsageError(f"{hub_id!r} is not a hub id", "it reads ORG/NAME, or ORG/NAME@REVISION")
    hub = _library()
    name, revision = parts
    where: dict[str, Any] = {"endpoint": endpoint or os.environ.get("HF_ENDPOINT") or None, "token": token}
    with _library_tuned():
        with _translated(name, revision):
            listed = hub.HfApi(**where).model_info(name, revision=revision).siblings or []
        beside, weights = files_needed(file.rfilename for file in listed)
        if not weights:
            raise CheckpointError(
                f"{name}: no model in this repository: {len(listed)} files, none of them weights that are read here",
                "a model has config.json and model.safetensors, or Tortoise's autoregressive.pth and clvp2.pth",
            )
        where |= {"revision": revision, "cache_dir": hub_cache()}
        for files, workers in ((beside, 8), (weights, 1)):  # one after the other: the last file is a whole model's mark
            if files:
                _download(hub, name, allow_patterns=files, max_workers=workers, **where)
    found = cached_model(f"{name}@{revision}")
    if found is None:
        raise CheckpointError(f"{name}: not all of the model is there", "run it again: whole files are kept")
    return found


def _download(hub: Any, name: str, **options: Any) -> None:
    """Download files, going on where a cut connection broke off: not every version of the library does so itself."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _translated(name, options["revision"]), _bars() as bar:
                hub.snapshot_download(name, tqdm_class=bar, **options)
            return
        except ConnectionFailedError as error:
            if attempt == ATTEMPTS:
                raise
            log.debug("%s; attempt %d of %d", error.message, attempt + 1, ATTEMPTS)
            time.sleep(attempt)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ClvpError("fetching needs huggingface_hub, which is not installed", "pip install 'clvp[hub]'") from None
    return huggingface_hub


@contextmanager
def _library_tuned() -> Iterator[None]:
    """While fetching: bars at a terminal only, no report of each retry unless much is to be said, small steps."""
    constants: Any = import_module("huggingface_hub.constants")
    utils, library_log = import_module("huggingface_hub.utils"), import_module("huggingface_hub.utils.logging")
    before = library_log.get_verbosity(), constants.DOWNLOAD_CHUNK_SIZE
    silent = not (sys.stderr.isatty() and log.isEnabledFor(logging.INFO)) and not utils.are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a full disk it warns, and then fails: the failure is told
        try:
            if not log.isEnabledFor(logging.DEBUG):
                library_log.set_verbosity(logging.ERROR)
            if silent:
                utils.disable_progress_bars()
            constants.DOWNLOAD_CHUNK_SIZE = min(STEP_BYTES, before[1])
            yield
        finally:
            library_log.set_verbosity(before[0])
            if silent:
                utils.enable_progress_bars()
            constants.DOWNLOAD_CHUNK_SIZE = before[1]


@contextmanager
def _bars() -> Iterator[type]:
    """The library's progress bar, but gone when the work is done: left alone, some are drawn over what comes after."""
    library_bar: Any = import_module("huggingface_hub.utils.tqdm").tqdm
    drawn: list[Any] = []

    class Bar(library_bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "leave": False})
            drawn.append(self)

    try:
        yield Bar
    finally:
        for bar in drawn:
            bar.close()


@contextmanager
def _translated(name: str, revision: str) -> Iterator[None]:
    try:
        yield
    except ClvpError:
        raise
    except Exception as error:
        chain: list[BaseException] = []
        step: BaseException | None = error
        while step is not None and step not in chain:
            chain.append(step)
            step = step.__cause__ or step.__context__
        told = (_explained(each, name, revision) for each in chain)
        first_line = str(error).strip().splitlines()[:1] or [type(error).__name__]
        unknown = CheckpointError(f"{name}: not fetched: {first_line[0]}", "run it again; whole files are kept")
        raise next((each for each in told if each is not None), unknown) from error


def _explained(error: BaseException, name: str, revision: str) -> ClvpError | None:
    """What a person is told of one error of the library; None where another in its chain says more."""
    from huggingface_hub import errors

    log_in = "hf auth login, or set HF_TOKEN"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(f"{name}: its owner has to grant access", f"ask on its page on the hub, then: {log_in}")
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(f"{name}: no revision {revision}", "name a branch, a tag or a commit that it has")
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(f"no model {name} on the hub, or a private one", f"check the name; if private: {log_in}")
    if status in (401, 403):
        return CheckpointError(f"{name}: access denied ({status})", f"check the token: {log_in}")
    if isinstance(status, int):
        return CheckpointError(f"{name}: the hub answered {status}", "try again later; check HF_ENDPOINT if it is set")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return CheckpointError(f"{name}: not fetched: HF_HUB_OFFLINE is set", "unset it to fetch")
    if isinstance(error, OSError) and error.errno in (*DISK_ERRNOS, errno.EACCES, errno.EPERM, errno.EROFS):
        return unwritable(error, hub_cache())
    if type(error).__module__.partition(".")[0].lstrip("_") in LIBRARIES_OF_THE_NETWORK or isinstance(
        error, (ConnectionError, TimeoutError)
    ):
        return ConnectionFailedError(
            f"{name}: the connection failed: {str(error).strip() or type(error).__name__}",
            "check the network, then run it again: whole files are kept",
        )
    return None
