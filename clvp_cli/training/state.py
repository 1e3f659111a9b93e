"""A run's directory: who may write it, the state that a later run takes up, and the log up to there.

Owns the names in it and when it is nobody else's. Knows nothing of tasks, steps or losses.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..errors import CheckpointError, InputError, OutputError
from ..io.atomic import atomic_write, translated, undisturbed
from ..io.jsonl import lock
from .data import make_directory

STATE, LOG, PLOT, MODEL = "state.pt", "log.jsonl", "loss.png", "model"


@dataclass
class Progress:
    """Where a run is."""

    step: int = 0
    best: float = math.inf
    stale: int = 0  # evaluations since the best
    evaluated: int = 0  # the last step that was


@contextmanager
def claimed(out: Path, resume: bool) -> Iterator[None]:
    """Make a run's directory where it is missing, and keep it from other runs meanwhile.

    Raises:
        OutputError: it holds another run and `resume` is not given, or files that no run here can have written (a run
            begins with its state), or another process trains there, or it cannot be made.
    """
    make_directory(out, "-o")
    with translated(out):
        descriptor = os.open(out, os.O_RDONLY) if os.name == "posix" else None
    try:
        if descriptor is not None:
            lock(descriptor, out)
        if (out / STATE).is_file():
            if not resume:
                raise OutputError(
                    f"{out}: a run is there already", "go on with it with --resume, or name another directory"
                )
        elif there := [n for n in (LOG, PLOT, MODEL) if (out / n).exists() and (out / n).stat().st_size]:
            raise OutputError(
                f"{out}: holds {there[0]}, and no {STATE} of a run to go on with",
                f"move {there[0]} away, or name another directory",
            )
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def begin(module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], out: Path) -> Progress:
    """Take up the state in `out`, or leave the first one there."""
    if (out / STATE).is_file():
        progress = load_state(module, optimizers, out)
        if progress.evaluated and not (out / MODEL).exists():  # the best is lost: the next becomes it
            progress.best, progress.evaluated = math.inf, min(progress.evaluated, progress.step - 1)
        _cut_log(out / LOG, progress)
    else:
        progress = Progress()
        save_state(module, optimizers, progress, out)  # whatever happens from here on, the directory is a run's
    return progress


def save_state(module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], progress: Progress, out: Path) -> None:
    """Everything a later run needs, in one file that is there whole or not at all."""
    content = {
        "module": module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "progress": vars(progress),
    }
    with undisturbed(), atomic_write(out / STATE) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # its zip writer's; behind it is what the file said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_state(module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], out: Path) -> Progress:
    """Put a saved state back into the module and its optimisers."""
    try:
        content = torch.load(out / STATE, weights_only=True, map_location=device_of(module))
        module.load_state_dict(content["module"])
        for optimizer, state in zip(optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        done = content["progress"]
        return Progress(**{"evaluated": done["step"], **done})  # earlier versions saved after evaluating alone
    except Exception as error:  # damaged and unsafe files raise most kinds there are
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{out / STATE}: cannot be resumed: {reason}", "was the configuration changed?") from None


def _cut_log(path: Path, progress: Progress) -> None:
    """Drop what was logged after the state that is resumed: those steps and evaluations come again."""
    if not path.is_file():
        return
    kept = {False: progress.step, True: progress.evaluated}  # by whether a line is an evaluation's
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        lines = [line for line in lines if (row := json.loads(line))["step"] <= kept["held_out_loss" in row]]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: no log of a run", "move it away: the run goes on with a new one") from None
    with atomic_write(path, "w") as file:
        file.writelines(line + "\n" for line in lines)


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights are."""
    return next(module.parameters()).device
