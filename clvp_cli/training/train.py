"""The entry: a task's name, a configuration, a directory → a trained model directory.

train("codec", Path("codec.yaml"), Path("runs/codec"))                   # OUT/model holds the best so far
train("alignment", Path("alignment.yaml"), Path("runs/a"), model=Path("runs/codec/model"))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import CheckpointError, UsageError
from ..locate import model_path
from .config import load_train_config
from .loop import Report, Task, run
from .state import MODEL, Progress, claimed
from .workshop import Workshop

TaskName = Literal["codec", "decoder", "clvp", "alignment", "phones"]
TASKS: tuple[str, ...] = get_args(TaskName)


def train(
    task: TaskName,
    config_path: Path,
    out: Path,
    resume: bool = False,
    *,
    model: str | Path | None = None,
    report: Report | None = None,
    note: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Run one task to its end.

    Args:
        task: codec, decoder, clvp (the contrastive pair), alignment, or phones (what the others learn from).
        config_path: a YAML file (config.TrainConfig).
        out: the run's directory: state.pt, log.jsonl, loss.png, and model/, a model directory with the best so far.
        resume: go on with the run in `out`.
        model: a model to start from (fine-tuning), as `model_path` takes it; parts it lacks are made new.
        report: hears every line of the log. note: hears the progress of preparations (what, how many, of how many).

    Returns:
        {"task", "steps", "best", "model"}: the last figure is where the model lies.
    Raises:
        ConfigError, InputError, CheckpointError, OutputError: configuration, data, model or directory are at fault.
    """
    if task not in TASKS:
        raise UsageError(f"no task is called {task!r}", f"tasks are {', '.join(TASKS)}")
    base = None if model is None else model_path(model)
    if base is not None and not base.is_dir():
        raise CheckpointError(f"{model}: no directory", "training starts from a model directory (clvp model convert)")
    config = load_train_config(config_path)
    with claimed(out, resume):
        workshop = Workshop(config, base, out, note or (lambda what, done, of: None))
        progress = run(make_task(task, workshop), config.loop, config.optim, out, report=report or _ignore)
    return {"task": task, **_figures(progress), "model": str(out / MODEL)}


def make_task(task: str, workshop: Workshop) -> Task:
    """The task of that name, with random weights a function of the run's seed."""
    import torch

    torch.manual_seed(workshop.config.loop.seed)
    if task == "codec":
        from .codec import CodecTask

        return CodecTask(workshop)
    if task == "alignment":
        from .alignment import AlignmentTask

        return AlignmentTask(workshop)
    if task == "phones":
        from .recogniser import RecogniserTask

        return RecogniserTask(workshop)
    if task == "clvp":
        from .clvp import PairTask

        return PairTask(workshop)
    from .decoder import DecoderTask

    return DecoderTask(workshop)


def _figures(progress: Progress) -> dict[str, Any]:
    best = progress.best if abs(progress.best) < float("inf") else None
    return {"steps": progress.step, "best": best}


def _ignore(row: Mapping[str, Any]) -> None:
    pass
